"""Registries: names, entry points, and what goes wrong with them."""

import subprocess
import sys
from pathlib import Path

import pytest

from mage.registry import Registry

ROOT = Path(__file__).parent.parent


@pytest.fixture
def colours() -> Registry[str]:
    registry: Registry[str] = Registry(kind="colour", group="mage.test_colours")
    registry.add("red", "#f00")
    return registry


def package(folder: Path, name: str, code: str, points: str) -> None:
    """An installed package with entry points, as pip would leave it."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mage.test_colours]\n{points}\n")


def test_entries_are_got_by_name_and_unknown_ones_are_named(colours: Registry[str]) -> None:
    assert colours.get("red") == "#f00"
    assert colours.names() == ("red",)
    with pytest.raises(ValueError, match=r"there is no colour 'blue'; there are red .*mage\.test_colours"):
        colours.get("blue")


def test_a_name_is_taken_once(colours: Registry[str]) -> None:
    colours.add("red", colours.get("red"))
    with pytest.raises(ValueError, match="the colour 'red' exists already: choose another name"):
        colours.add("red", "#e00")
    colours.remove("red")
    colours.add("red", "#e00")
    assert colours.get("red") == "#e00"


def test_a_decorator_registers_and_returns_what_it_decorates() -> None:
    functions: Registry[object] = Registry(kind="function", group="mage.test_functions")

    @functions.register("one")
    def one() -> int:
        return 1

    assert functions.get("one") is one
    assert one() == 1


def test_importing_a_registry_imports_neither_the_library_nor_pytorch() -> None:
    code = "import sys, mage.registry; print([n for n in sys.modules if n == 'torch' or n.startswith('mage.')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "['mage.registry']"


def test_two_packages_with_one_name_are_both_named_when_it_is_asked_for(
    colours: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first_colours", "second_colours"):
        package(tmp_path, name, "BLUE = '#00f'", f"blue = {name}:BLUE")
    monkeypatch.syspath_prepend(tmp_path)
    assert colours.names() == ("red", "blue")
    assert colours.get("red") == "#f00"
    with pytest.raises(ValueError, match="'blue' is provided by first_colours and second_colours: uninstall"):
        colours.get("blue")


def test_a_package_cannot_take_a_name_of_the_library(
    colours: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "greedy_colours", "RED = '#e00'", "red = greedy_colours:RED")
    monkeypatch.syspath_prepend(tmp_path)
    assert colours.names() == ("red",)
    assert colours.get("red") == "#f00"


def test_entry_points_are_found_and_loaded_when_asked_for(
    colours: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "stranger_colours", "BLUE = '#00f'", "blue = stranger_colours:BLUE\nbad = stranger_colours:NONE")
    monkeypatch.syspath_prepend(tmp_path)
    assert colours.names() == ("red", "blue", "bad")
    assert "stranger_colours" not in sys.modules
    assert colours.get("blue") == "#00f"
    with pytest.raises(ValueError, match="the colour 'bad' of the package stranger_colours cannot be loaded"):
        colours.get("bad")
