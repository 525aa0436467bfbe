"""Locks of folders and files, so that two processes do not write the same run.

A lock is a file that names its process: host, number and command. The operating system's lock on it (`fcntl.lockf`)
ends with the process, however it ends, and holds on network disks too, unless they are mounted with local locks only
(NFS: nolock). Where there are no such locks, the process named in the file counts: one of this host that is dead is
ignored; of another host's it cannot be known, and the error says which file to delete.
"""

import contextlib
import errno
import json
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mage import atomic

if os.name == "posix":
    import fcntl

NAME = ".lock"
DENIED = (errno.EACCES, errno.EAGAIN)
PAUSE = 0.05
"""Seconds between two tries, for those that wait."""

_held: set[tuple[int, str]] = set()
"""Process and path of the locks that this process holds: a forked process holds none of its parent's."""
_turns: dict[tuple[int, str], threading.RLock] = {}
"""Process and path of the turns that were ever taken: the system's locks do not tell threads apart."""


class Busy(ValueError):
    """Another process holds the lock."""


@contextlib.contextmanager
def held(path: Path, what: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Context in which this process alone holds the lock file `path`; a process may take the same lock again inside.

    what: the file or folder that it is for, named in the error. wait: seconds until it is given up.
    Raises Busy, a ValueError, which names the process that holds it.
    """
    key = (os.getpid(), os.path.abspath(path))
    if key in _held:
        yield
        return
    is_new = not path.parent.exists()
    file = _wait_for(path, what, wait)
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        # Removed before it is released: who opened it meanwhile sees that it has lost its name.
        with contextlib.suppress(OSError):  # the folder was moved or removed meanwhile, or this is Windows
            if _is_still(path, file):
                path.unlink()
        os.close(file)
        if os.name != "posix":
            path.unlink(missing_ok=True)
        if is_new:
            with contextlib.suppress(OSError):  # something was written into it
                path.parent.rmdir()


def run_lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    """The lock of a run folder, a token cache or another folder that one process at a time writes."""
    return held(folder / NAME, folder)


def file_lock(path: Path) -> contextlib.AbstractContextManager[None]:
    """The lock of a file that is written over a longer time, beside it."""
    return held(path.with_name(f".{path.name}{NAME}"), path)


@contextlib.contextmanager
def turns(path: Path) -> Iterator[None]:
    """The lock file `path` of work that one thread of one process should do; the others wait for their turn."""
    turn = _turns.setdefault((os.getpid(), os.path.abspath(path)), threading.RLock())
    with turn, held(path, path, wait=math.inf):
        yield


def check_free(folder: Path) -> None:
    """Raise Busy if another process holds the lock of a folder."""
    if (folder / NAME).is_file():
        with run_lock(folder):
            pass


def _wait_for(path: Path, what: Path, wait: float) -> int:
    end = time.monotonic() + wait
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise atomic.explain(error, what) from None
        try:
            return _take(path, what)
        except Busy:
            if time.monotonic() > end:
                raise
            time.sleep(PAUSE)
        except FileNotFoundError:  # its last holder has removed the folder, which was made for the lock alone
            continue
        except OSError as error:
            raise atomic.explain(error, what) from None


def _take(path: Path, what: Path) -> int:
    """The lock's open file."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            by_system = _lock(file)
            if by_system is None and _names_a_living_process(file):
                raise Busy(f"{_sentence(what, _read(file))}; if that process is gone, delete {path}")
            if by_system is False:
                raise Busy(_sentence(what, _read(file)))
            if not _is_still(path, file):  # its last holder has removed it after we opened it
                os.close(file)
                continue
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
            os.write(file, json.dumps(_this_process()).encode())
            return file
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(file)
            raise


def _lock(file: int) -> bool | None:
    """Whether the system's lock was taken; None where there is none."""
    if os.name != "posix":
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in DENIED else None
    return True


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _this_process() -> dict[str, Any]:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:300]
    return {"host": platform.node(), "pid": os.getpid(), "command": command}


def _read(file: int) -> dict[str, Any]:
    try:
        os.lseek(file, 0, os.SEEK_SET)
        owner = json.loads(os.read(file, 4096))
    except (ValueError, OSError):
        owner = None
    return owner if isinstance(owner, dict) else {}


def _names_a_living_process(file: int) -> bool:
    owner = _read(file)
    pid = owner.get("pid")
    if not isinstance(pid, int):
        return False
    return owner.get("host") != platform.node() or (pid != os.getpid() and atomic.is_alive(pid))


def _sentence(what: Path, owner: dict[str, Any]) -> str:
    who = f"process {owner.get('pid')} on {owner.get('host')} ({owner.get('command')})" if owner else "another process"
    return f"{what} is in use by {who}: wait until it has ended, or choose another name"
