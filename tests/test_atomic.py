"""Files and folders appear whole or not at all."""

import json
from pathlib import Path

import pytest

from mage import atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic.replacing(path) as temporary:
        assert temporary.parent == path.parent, "a rename must not cross a file system"
        temporary.write_text("half")
        assert path.read_text() == "old"
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file.txt"]


def test_a_new_file_is_not_seen_before_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "file.txt"
    with atomic.replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_the_old_one_and_no_rubbish(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), atomic.replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_missing_temporary_file_is_an_error_and_not_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic.replacing(path):
        pass
    assert path.read_text() == "old"


def test_a_folder_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with atomic.replacing_folder(path) as temporary:
        (temporary / "new.txt").write_text("new")
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file.txt").write_text("inner")
        assert names(path) == ["old.txt"]
    assert names(path) == ["inner", "new.txt"], "nothing of the old folder is left"
    assert (path / "inner" / "file.txt").read_text() == "inner"
    assert names(tmp_path) == ["model"]
    assert path.stat().st_mode & 0o777 == 0o755, "others can read it, unlike a temporary folder"


@pytest.mark.parametrize("existing", [True, False])
def test_an_interrupted_folder_leaves_the_old_one_and_no_rubbish(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "model"
    if existing:
        path.mkdir()
        (path / "old.txt").write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic.replacing_folder(path) as temporary:  # noqa: PT012
        (temporary / "new.txt").write_text("new")
        raise RuntimeError("stop")
    assert names(tmp_path) == (["model"] if existing else [])
    assert not existing or names(path) == ["old.txt"]


def test_text_is_utf8_and_json_is_readable(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "text.txt", "Fréchet\n")
    assert (tmp_path / "text.txt").read_bytes() == "Fréchet\n".encode()
    value = {"steps": 3, "names": ["a", "b"], "nothing": None}
    atomic.write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text()
    assert json.loads(text) == value
    assert text.endswith("}\n")
    assert '\n  "steps": 3' in text


def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    atomic.write_json(path, 1)
    with pytest.raises(TypeError):
        atomic.write_json(path, {"path": tmp_path})
    assert path.read_text() == "1\n"
    assert names(tmp_path) == ["value.json"]
