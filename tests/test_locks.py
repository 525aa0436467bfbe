"""One process at a time in a folder, and no lock that outlives its process."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mage import locks
from mage.runs import Launch

HOLD = """
import sys, time
from pathlib import Path
from mage import locks
with locks.run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
Hold = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts a process that holds the lock of a folder."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(locks.__file__).parents[1])
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_process_is_told_which_one_is_there(tmp_path: Path, hold: Hold) -> None:
    process = hold(tmp_path)
    sentence = rf"{tmp_path} is in use by process {process.pid} on {platform.node()} \(-c .*wait until it has ended"
    with pytest.raises(locks.Busy, match=sentence), locks.run_lock(tmp_path):
        pass
    with pytest.raises(ValueError, match=sentence):
        locks.check_free(tmp_path)
    assert (tmp_path / ".lock").exists(), "asking does not take the lock from the other process"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_ends_with_its_process_however_it_ends(tmp_path: Path, hold: Hold, number: int) -> None:
    process = hold(tmp_path)
    process.send_signal(number)
    process.wait()
    assert (tmp_path / ".lock").exists()
    locks.check_free(tmp_path)
    with locks.run_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_one_who_waits_gets_the_lock_when_it_is_released(tmp_path: Path, hold: Hold) -> None:
    process = hold(tmp_path)
    with pytest.raises(locks.Busy), locks.held(tmp_path / ".lock", tmp_path, wait=0.2):
        pass
    process.kill()
    with locks.held(tmp_path / ".lock", tmp_path, wait=10):
        pass


def test_a_process_may_take_its_own_lock_again(tmp_path: Path) -> None:
    with locks.run_lock(tmp_path):
        with locks.run_lock(tmp_path):
            locks.check_free(tmp_path)
        assert (tmp_path / ".lock").exists(), "it is held until the outer end"
    assert not (tmp_path / ".lock").exists()


def test_a_folder_that_was_made_for_the_lock_alone_does_not_stay(tmp_path: Path) -> None:
    """A command that is refused after it has taken the lock leaves nothing."""
    for name, files in (("empty", 0), ("used", 1)):
        with locks.run_lock(tmp_path / name):
            if files:
                (tmp_path / name / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_a_child_does_not_keep_its_parents_lock(tmp_path: Path, hold: Hold) -> None:
    """Workers of a data loader live a little longer than a killed run, which must be resumed at once all the same."""
    child = os.fork()
    if child == 0:
        with locks.run_lock(tmp_path):
            grandchild = os.fork()
            if grandchild == 0:
                time.sleep(60)
                os._exit(0)
            (tmp_path / "grandchild").write_text(str(grandchild))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        locks.check_free(tmp_path)
    finally:
        os.kill(int((tmp_path / "grandchild").read_text()), signal.SIGKILL)


def test_a_moved_folder_is_free_once_its_process_has_ended(tmp_path: Path, hold: Hold) -> None:
    process = hold(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(locks.Busy):
        locks.check_free(tmp_path / "there")
    locks.check_free(tmp_path / "here")
    process.kill()
    process.wait()
    locks.check_free(tmp_path / "there")


def test_the_first_of_several_processes_asks_for_all(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that comes late to its start finds the lock taken: by the first of its own run."""
    hold(tmp_path)
    monkeypatch.setenv("RANK", "1")
    Launch(tmp_path).check_out()
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(locks.Busy):
        Launch(tmp_path).check_out()


@pytest.fixture
def without_system_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network disk that has none."""
    monkeypatch.setattr(locks, "_lock", lambda file: None)


@pytest.mark.usefixtures("without_system_locks")
@pytest.mark.parametrize(
    ("host", "pid", "free"),
    [(platform.node(), 2**22 + 1, True), (platform.node(), os.getppid(), False), ("elsewhere", 2**22 + 1, False)],
)
def test_without_locks_of_the_system_the_named_process_counts(tmp_path: Path, host: str, pid: int, free: bool) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"host": host, "pid": pid, "command": "mage pretrain"}))
    if free:
        locks.check_free(tmp_path)
        assert not (tmp_path / ".lock").exists()
    else:
        with pytest.raises(locks.Busy, match=rf"process {pid} on {host} \(mage pretrain\).*gone, delete .*\.lock"):
            locks.check_free(tmp_path)


def test_a_lock_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: object) -> int:
        raise OSError(30, "Read-only file system", str(tmp_path / ".lock"))

    monkeypatch.setattr(os, "open", refuses)
    with pytest.raises(OSError, match="cannot be written: read-only file system"), locks.run_lock(tmp_path):
        pass


def test_a_folder_that_cannot_exist_is_an_error_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_drive(*arguments: object, **more: object) -> None:
        raise FileNotFoundError(2, "no such drive")

    monkeypatch.setattr(Path, "mkdir", no_drive)
    with pytest.raises(FileNotFoundError), locks.run_lock(tmp_path / "x"):
        pass
