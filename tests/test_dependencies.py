"""What the package imports is what an installation brings, and the other way round."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"scikit-learn": "sklearn", "pillow": "PIL", "pyyaml": "yaml"}
"""Distributions that are imported by another name."""


def distributions(requirements: list[str]) -> set[str]:
    """Import names of requirements such as torch>=2.5."""
    names = [re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in requirements]
    return {NAMES.get(name, name.replace("-", "_")) for name in names}


def imported(*, when_imported: bool) -> dict[str, str]:
    """Packages of others, and a file that imports each; when_imported: without imports inside functions."""
    found = {}
    for file in sorted((ROOT / "mage").rglob("*.py")):
        tree = ast.parse(file.read_text())
        late = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef)
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            if when_imported and id(node) in late:
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= {name.split(".")[0]: str(file) for name in names}
    return {name: file for name, file in found.items() if name != "mage" and name not in sys.stdlib_module_names}


def test_what_modules_import_comes_with_the_installation_and_nothing_else_does() -> None:
    core = distributions(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    at_once = imported(when_imported=True)
    assert not {name: file for name, file in at_once.items() if name not in core}, "not in dependencies"
    assert not core - imported(when_imported=False).keys(), "in dependencies, and imported by nothing"
