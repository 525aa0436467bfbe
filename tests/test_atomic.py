"""Files and folders appear whole or not at all."""

import errno
import json
import os
import resource
import signal
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


def test_bytes_of_names_that_are_not_utf8_are_written_as_escapes(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "page.html", "<h1>f\u00fc r \udcfc</h1>")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "<h1>f\u00fc r \\xfc</h1>"


def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    atomic.write_json(path, 1)
    with pytest.raises(TypeError):
        atomic.write_json(path, {"path": tmp_path})
    assert path.read_text() == "1\n"
    assert names(tmp_path) == ["value.json"]


DEAD = 2**22 + 1
"""No process has this number: it is above Linux's largest."""


def test_what_a_dead_process_left_is_removed_at_the_next_write(tmp_path: Path) -> None:
    mine, other = atomic.HOST, "another_machine"
    (tmp_path / f".file.txt.{mine}-{DEAD}-0.tmp").write_text("half")
    (tmp_path / f".model.{mine}-{DEAD}-1.tmp").mkdir()
    (tmp_path / f".model.{mine}-{DEAD}-1.tmp" / "weights").write_text("half")
    (tmp_path / f".file.txt.{other}-{DEAD}-0.tmp").write_text("perhaps still written")
    (tmp_path / f".file.txt.{mine}-{os.getppid()}-0.tmp").write_text("still written")
    (tmp_path / ".mine.tmp").write_text("a file of the user's")
    atomic.write_text(tmp_path / "file.txt", "whole")
    kept = [f".file.txt.{other}-{DEAD}-0.tmp", f".file.txt.{mine}-{os.getppid()}-0.tmp", ".mine.tmp", "file.txt"]
    assert names(tmp_path) == sorted(kept)


def test_other_files_stay_in_a_folder_that_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for number in range(2):
        with atomic.replacing_folder(path, replaces=("weights", "card", "parts")) as temporary:
            (temporary / "weights").write_text(str(number))
        if not number:
            for name in ("card", "notes.txt", "parts/old", "mine/deep/table.csv", f".x.{atomic.HOST}-{DEAD}-0.tmp"):
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_text(name)
            (path / "link").symlink_to("notes.txt")
    assert names(path) == ["link", "mine", "notes.txt", "weights"]
    assert (path / "weights").read_text() == "1"
    assert (path / "mine" / "deep" / "table.csv").read_text() == "mine/deep/table.csv"
    assert (path / "link").is_symlink()
    with atomic.replacing_folder(path) as temporary:
        (temporary / "weights").write_text("2")
    assert names(path) == ["weights"]


def test_machines_whose_names_begin_alike_have_other_temporary_names(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = []
    for node in ("gke-ml-cluster-gpu-pool-a1", "gke-ml-cluster-gpu-pool-b2", "gke-ml-cluster-gpu-pool-a1"):
        monkeypatch.setattr("platform.node", lambda node=node: node)
        hosts.append(atomic._host())
    assert hosts[0] == hosts[2] != hosts[1]
    assert atomic.TEMPORARY.fullmatch(f".file.txt.{hosts[0]}-12-0.tmp")


def test_a_folder_is_there_at_every_moment_of_its_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    with atomic.replacing_folder(path) as temporary:
        (temporary / "file").write_text("old")
    moves: list[Path] = []
    monkeypatch.setattr(os, "replace", lambda first, second: moves.append(first))
    with atomic.replacing_folder(path) as temporary:
        (temporary / "file").write_text("new")
    assert not moves, "the two names are swapped in one step"
    assert (path / "file").read_text() == "new"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("after", [1, 2])
def test_a_folder_is_found_again_if_the_process_died_between_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Where a disk cannot swap names."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "file").write_text("old")
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    child = os.fork()
    if child == 0:
        replace, calls = os.replace, []

        def dying(first: Path, second: Path) -> None:
            replace(first, second)
            calls.append(first)
            if len(calls) == after:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = dying  # type: ignore[assignment]
        with atomic.replacing_folder(path) as temporary:
            (temporary / "file").write_text("new")
        os._exit(0)
    os.waitpid(child, 0)
    assert path.exists() == (after == 2)
    atomic.recover(path)
    assert (path / "file").read_text() == ("old" if after == 1 else "new")
    atomic.clear(tmp_path)
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_sentence_and_the_old_file_is_intact(tmp_path: Path, number: int) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match=r"^the disk is full: .*file\.txt was not written"), atomic.replacing(path):
        raise OSError(number, "whatever the system says")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_limit_of_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    """A real refusal of the system, unlike the test before."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="the disk is full"):
            atomic.write_bytes(tmp_path / "file", bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuses(self: Path, data: bytes) -> int:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "write_bytes", refuses)  # the tests may run as root, who may write everywhere
    with pytest.raises(OSError, match=r"^.*file\.txt cannot be written: .* in the folder"):
        atomic.write_text(tmp_path / "file.txt", "new")


def test_a_file_that_cannot_be_read_while_writing_another_keeps_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="secret"), atomic.replacing(tmp_path / "a" / "file.txt"):
        raise PermissionError(errno.EACCES, "Permission denied", "/secret")


def test_the_current_folder_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic.replacing_folder(".") as temporary:
        (temporary / "x").write_text("new")
    assert (tmp_path / "here" / "x").read_text() == "new"


def test_a_folder_that_cannot_be_replaced_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        with pytest.raises(OSError, match=r"own cannot be replaced: the folder .* cannot be written"):
            atomic.check_replaceable(folder)
        atomic.check_replaceable(tmp_path / "new")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)
    with pytest.raises(OSError, match="where a disk is mounted"), atomic.replacing_folder(folder):
        pass
    assert names(tmp_path) == ["own"]


def test_what_file_managers_write_leaves_a_folder_empty(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("")
    assert atomic.is_empty(tmp_path)
    (tmp_path / "photo.png").write_text("")
    assert not atomic.is_empty(tmp_path)
    assert not atomic.is_empty(tmp_path / "photo.png")
