"""Places in the code that the documentation names exist, and so does what it names in them."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mage

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
PLACE = re.compile(r"`((?:\w+/)*\w+\.py|(?:\w+/)+)(?::([\w.]+))?`")


def places(page: Path) -> list[tuple[str, str]]:
    """(file or folder, name in it or nothing) as a page writes them."""
    return PLACE.findall(page.read_text())


def names(tree: ast.AST, prefix: str = "") -> set[str]:
    """Functions, classes and assigned names of a module, and methods and fields as Class.name."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                found |= names(node, f"{prefix}{node.name}.")
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            if isinstance(target, ast.Name):
                found.add(prefix + target.id)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_mentions_exist(page: Path) -> None:
    for file, name in places(page):
        homes = [ROOT / home / file for home in ("mage", ".") if (ROOT / home / file).exists()]
        if file.endswith("/") and not homes:
            continue  # a folder of the reader's
        assert homes, f"{file} is not there"
        if name:
            assert name in names(ast.parse(homes[0].read_text())), f"{file} has no {name}"


def test_the_tour_names_every_part_of_the_package() -> None:
    told = {file.rstrip("/") for file, _ in places(ROOT / "docs" / "tour.md")}
    parts = {path.name for path in (ROOT / "mage").iterdir() if not path.name.startswith(("__", "py.typed"))}
    assert parts <= told, f"the tour does not name {sorted(parts - told)}"


def headings(page: Path) -> set[str]:
    """Headings of a page, without their numbers."""
    return set(re.findall(r"^#+ (?:[\d.]+ )?(.+)$", page.read_text(), re.MULTILINE))


def citations(file: Path) -> list[str]:
    """What stands behind each mention of the page on the method."""
    return re.findall(r"docs/method\.md,?\s*(.{0,80})", file.read_text(), re.DOTALL)


def names_a_heading(citation: str, known: set[str]) -> bool:
    """Whether a citation begins with a whole heading, which a line break may interrupt."""
    whole = (r"\s+".join(map(re.escape, heading.split())) for heading in known)
    return any(re.match(rf"{heading}(?=[^\w\s-]|\n|$)", citation) for heading in whole)


CITING = [
    file
    for folder in ("mage", "tests")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if file != Path(__file__) and citations(file)
]


@pytest.mark.parametrize("file", CITING, ids=lambda file: file.name)
def test_headings_of_the_method_that_docstrings_cite_exist(file: Path) -> None:
    known = headings(ROOT / "docs" / "method.md")
    unknown = [citation for citation in citations(file) if not names_a_heading(citation, known)]
    assert not unknown, f"docs/method.md has no such heading: {unknown}; there are {sorted(known)}"


def test_a_citation_of_a_heading_that_is_not_there_is_found() -> None:
    known = {"Sampling", "Masking and dropping", "MAGE-C"}
    assert names_a_heading("Sampling): every token", known)
    assert names_a_heading("Masking and\n    dropping", known)
    assert not names_a_heading("Masking", known)
    assert not names_a_heading("Sampling and more", known)
    assert not names_a_heading("MAGE", known)
    assert not names_a_heading("", known)


def test_the_page_on_installation_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`[^|]*) \|", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(extras)


def test_the_pages_build_without_a_warning_and_show_what_a_user_calls(tmp_path: Path) -> None:
    for package in ("sphinx", "furo", "myst_parser", "latex2mathml"):
        pytest.importorskip(package)
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path / "html")]
    built = subprocess.run(
        [*words, "-d", str(tmp_path / "trees")], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    for path in (tmp_path / "html").glob("*.html"):  # reading and searching need no network
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"', path.read_text())
        assert not loaded, f"{path.name} loads {loaded}"
    assert "<math" in (tmp_path / "html" / "method.html").read_text()
    page = (tmp_path / "html" / "api.html").read_text()
    public = [name for name in dir(mage.Mage) if not name.startswith("_")]
    shown = [f"Mage.{name}" for name in public] + [
        name for name in mage.__all__ if inspect.isclass(getattr(mage, name))
    ]
    missing = [name for name in shown if f'id="mage.{name}"' not in page]
    assert not missing, "what a user calls is on the page"


def test_the_page_of_models_shows_cards_and_pictures_of_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import tables

    record = {"command": "python x.py", "seed": 1, "commit": "abc", "seconds": 60.0, "machine": "a laptop"}
    record |= {"protocol": {}, "metrics": {"authentic_share": 0.9}}
    (tmp_path / "packaged" / "toy").mkdir(parents=True)
    card = {"title": "toys", "data": "ten", "licence": "MIT", "weights": "0", "record": record, "limits": ["A toy."]}
    (tmp_path / "packaged" / "toy" / "card.json").write_text(json.dumps(card))
    (tmp_path / "results" / "models" / "toy").mkdir(parents=True)
    (tmp_path / "results" / "models" / "toy" / "nearest.png").write_bytes(b"")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables.packaged, "FOLDER", tmp_path / "packaged")
    text = tables.filled("<!-- card toy -->\n<!-- end -->\n<!-- card missing -->\nold\n<!-- end -->\n")
    sys.modules.pop("tables")
    assert "## toy: toys" in text
    assert "### Limits" in text
    assert "90.0%" in text.replace("\N{NO-BREAK SPACE}", "")
    assert "](../results/models/toy/nearest.png)" in text
    assert "samples.png" not in text
    assert text.endswith("<!-- card missing -->\n\n\n\n<!-- end -->\n")
