"""What is published: wheel and sdist are complete and small, install and run elsewhere; the Dockerfile fits them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

import mage
from mage.store import packaged

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LARGEST = 60 * 10**6
"""Bytes of a file that is published; the index takes 100 million."""


def run(*words: object, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The sdist, and the wheel that is built from it, with the names of their files."""
    for package in ("build", "hatchling"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    return SimpleNamespace(
        folder=folder, wheel=wheel, sdist=sdist, in_wheel=set(zipfile.ZipFile(wheel).namelist()), in_sdist=inside
    )


def test_the_wheel_holds_the_whole_package_and_nothing_else(built: SimpleNamespace) -> None:
    files = [path for path in (ROOT / "mage").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    there = {path.relative_to(ROOT).as_posix() for path in files}
    own = {name for name in built.in_wheel if not name.startswith(f"mage_vision-{mage.__version__}.dist-info/")}
    assert there <= own
    assert {name.split("/")[0] for name in own} == {"mage"}
    for needed in ("mage/py.typed", "mage/report/style.css", "mage/report/explore.js"):
        assert needed in own
    for name in packaged.names():
        assert f"mage/packaged/{name}/transformer.safetensors" in own


def test_the_sdist_holds_what_its_tests_read(built: SimpleNamespace) -> None:
    words = ["git", "ls-files", "mage", "scripts", "tests", "docs", "studies", "examples", "results"]
    there = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.split()
    extra = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile"}
    missing = {*there, *extra, "Dockerfile", ".dockerignore"} - built.in_sdist
    assert not missing


def test_both_are_small_and_pass_the_check_of_the_index(built: SimpleNamespace) -> None:
    assert built.wheel.stat().st_size < LARGEST
    assert built.sdist.stat().st_size < LARGEST
    pytest.importorskip("twine")
    assert run("-m", "twine", "check", "--strict", built.wheel, built.sdist, folder=built.folder).count("PASSED") == 2


def test_an_installed_wheel_runs_from_another_folder(built: SimpleNamespace, tmp_path: Path) -> None:
    site = tmp_path / "site"
    words = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", site, built.wheel)
    run(*words, folder=tmp_path, PIP_DISABLE_PIP_VERSION_CHECK="1")
    where = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    assert run("-m", "mage", "--version", folder=tmp_path, **where).strip() == mage.__version__
    listed = json.loads(run("-m", "mage", "models", "--json", folder=tmp_path, **where))
    assert set(listed) == set(packaged.names())
    code = "import mage; print(mage.__file__); print(mage.load('digits').generate(1, steps=1).shape)"
    assert run("-c", code, folder=tmp_path, **where).splitlines() == [
        str(site / "mage" / "__init__.py"),
        "torch.Size([1, 1, 28, 28])",
    ]
    assert shutil.which("mage", path=str(site / "bin")), "the command comes with the wheel"


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {mage.__version__}\n" in (ROOT / "CITATION.cff").read_text()


INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()
    if line and not line.startswith("#")
]
"""Pairs of a Dockerfile's instruction and its arguments."""


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def copied() -> list[str]:
    """Sources in the build context that the image copies."""
    lists = [shlex.split(rest)[:-1] for rest in arguments("COPY") if "--from" not in rest]
    return [source for sources in lists for source in sources]


def test_the_image_is_built_from_files_that_are_there_and_not_ignored() -> None:
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in patterns
    for source in copied():
        assert (ROOT / source).exists()
        assert f"!{source}" in patterns, f".dockerignore keeps {source} out"


def test_the_images_files_are_enough_for_the_wheel(tmp_path: Path) -> None:
    for package in ("build", "hatchling"):
        pytest.importorskip(package)
    for source in copied():
        if (ROOT / source).is_file():
            shutil.copy(ROOT / source, tmp_path / source)
    assert all((tmp_path / name).is_file() for name in PROJECT["license-files"]), "the wheel leaves out what is missing"
    (tmp_path / "mage").mkdir()
    shutil.copy(ROOT / "mage" / "__init__.py", tmp_path / "mage")
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", "out", ".", folder=tmp_path)
    assert list((tmp_path / "out").glob(f"mage_vision-{mage.__version__}-*.whl"))


def test_the_image_runs_the_command_as_a_user_without_rights_on_a_supported_python() -> None:
    defaults = dict(rest.split("=") for rest in arguments("ARG"))
    assert f"Programming Language :: Python :: {defaults['PYTHON']}" in PROJECT["classifiers"]
    assert set(defaults["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])
    assert json.loads(arguments("ENTRYPOINT")[0]) == list(PROJECT["scripts"])
    names = [name for name, _ in INSTRUCTIONS]
    (user,) = arguments("USER")
    assert user not in ("root", "0")
    assert "RUN" not in names[names.index("USER") :], "what is installed, is installed before"
    assert f"useradd --create-home --uid 1000 {user}" in " ".join(arguments("RUN"))


def test_the_image_follows_the_usual_rules() -> None:
    assert "ADD" not in [name for name, _ in INSTRUCTIONS]
    for base in arguments("FROM"):
        assert re.match(r"python:\$\{PYTHON\}-slim-\w+", base), "a named version, not the newest"
    for command in arguments("RUN"):
        for part in command.split("&&"):
            words = shlex.split(part)
            if words[0] == "pip":
                assert "--no-cache-dir" in words
            if words[:2] == ["apt-get", "install"]:
                assert {"--yes", "--no-install-recommends"} <= set(words)
                assert "rm -rf /var/lib/apt/lists/*" in command, "in the same layer"
