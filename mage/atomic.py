"""Atomic writes: write to a temporary name in the same folder, sync to disk, then rename.

A temporary name is .NAME.HOST-PID-N.tmp. What a killed process leaves behind under such a name is removed by the next
process of this host that writes into the folder; other hosts' are left alone, because they may still be written.
"""

import contextlib
import ctypes
import errno
import glob
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any


def _host() -> str:
    """This machine in temporary names: numbers of processes say nothing on others, nor in other containers."""
    node = platform.node()
    with contextlib.suppress(OSError):
        node += os.readlink("/proc/self/ns/pid")  # that of containers; Linux only
    start = re.sub(r"[^A-Za-z0-9]", "_", platform.node())[:24] or "host"
    return f"{start}_{hashlib.sha256(node.encode()).hexdigest()[:8]}"


HOST = _host()
TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>\w+)-(?P<pid>\d+)-\d+\.(?P<kind>tmp|old)")
OF_FILE_MANAGERS = (".DS_Store", "Thumbs.db", "desktop.ini")
LOCK = re.compile(r"\.(.+\.)?lock")
"""Names of the locks of `mage.locks`."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

_numbers = itertools.count()
_mine: set[str] = set()
"""Temporary names that this process is writing: its number may also be that of a dead process."""
_cleared: set[str] = set()
"""Folders from which this process has removed what dead processes left; listing a folder at every write is slow."""


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; the file written there replaces `path` unless an exception occurs.

    Raises OSError; a full disk and a folder that cannot be written are told in one sentence.
    """
    path = Path(path)
    with _explained(path), _temporary(path) as temporary:
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | Path, *, replaces: Collection[str] | None = None) -> Iterator[Path]:
    """The same for a folder: an older folder at `path` is kept until the new one is complete.

    Its files can be read by whom the folder can be: safetensors writes them for their owner alone.
    replaces: names in the older folder that are gone then if they are not written anew; others, which someone else put
    there, stay. None: all are gone.
    """
    path = Path(os.path.abspath(path))  # "." has no name
    path = path.resolve() if path.is_symlink() else path
    check_replaceable(path)
    with _explained(path), _temporary(path) as temporary:
        temporary.mkdir()
        permissions = temporary.stat().st_mode & 0o666
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    file.chmod(permissions)
                    with open(file, "rb+") as handle:
                        os.fsync(handle.fileno())
            if replaces is not None and path.is_dir():
                _carry_over(path, temporary, replaces)
            _sync_folder(temporary)
            if not path.exists():
                os.replace(temporary, path)
            elif not _exchange(temporary, path):
                # There is no folder for a moment; `recover` finds the old one should the process end in it.
                old = temporary.with_suffix(".old")
                os.replace(path, old)
                os.replace(temporary, path)
                shutil.rmtree(old, ignore_errors=True)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _carry_over(old: Path, new: Path, replaced: Collection[str]) -> None:
    """Put what is in the old folder under other names into the new one, too."""
    for entry in old.iterdir():
        if entry.name in replaced or LOCK.fullmatch(entry.name) or TEMPORARY.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True, copy_function=_link, dirs_exist_ok=True)
        elif not (new / entry.name).exists():
            _link(str(entry), str(new / entry.name))


def _link(source: str, target: str) -> None:
    """The same file under a second name, or a copy where the disk knows no such names."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically; bytes of file names that are not UTF-8 as backslash escapes."""
    write_bytes(path, text.encode(errors="surrogateescape").decode(errors="backslashreplace").encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def clear(folder: Path) -> None:
    """Remove what processes of this host that are dead left in a folder under temporary names.

    An old folder whose process died between two renames gets its name back.
    """
    with contextlib.suppress(OSError):  # a folder that cannot be listed or written is told when it is written
        for entry in list(os.scandir(folder)):
            match = TEMPORARY.fullmatch(entry.name)
            if match is None or not _is_left_behind(entry.path, match):
                continue
            if match["kind"] == "old" and not (folder / match["name"]).exists():
                os.replace(entry.path, folder / match["name"])
            elif entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


def recover(path: Path) -> None:
    """Give a folder its name back that a dead process was replacing; nothing if `path` exists."""
    if not path.exists() and path.parent.is_dir() and any(path.parent.glob(f".{glob.escape(path.name)}.*.old")):
        clear(path.parent)


def check_replaceable(folder: Path) -> None:
    """Raise an OSError if a folder that is there cannot be replaced, for which the one above it is written."""
    folder = Path(os.path.abspath(folder))
    folder = folder.resolve() if folder.is_symlink() else folder
    if folder.is_dir() and os.path.ismount(folder):
        raise OSError(f"{folder} is where a disk is mounted, and cannot be replaced: choose a folder in it")
    if folder.is_dir() and not os.access(folder.parent, os.W_OK | os.X_OK):
        raise OSError(
            f"{folder} cannot be replaced: the folder {folder.parent} cannot be written; choose another place"
        )


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but locks, temporary names and what file managers write; also if there is none."""
    if not folder.is_dir():
        return not folder.exists()
    return all(
        name in OF_FILE_MANAGERS or TEMPORARY.fullmatch(name) or LOCK.fullmatch(name) for name in os.listdir(folder)
    )


def is_alive(pid: int) -> bool:
    """Whether a process of this host exists; True where that cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def explain(error: OSError, path: Path) -> OSError:
    """An error in writing `path` as a sentence: a full disk, or a folder that cannot be written; else itself."""
    if error.errno in FULL:
        sentence = f"the disk is full: {path} was not written, and what was there before is intact"
    elif error.errno in READ_ONLY:
        sentence = f"{path} cannot be written: {os.strerror(error.errno).lower()} in the folder {path.parent}"
    else:
        return error
    explained = OSError(sentence)
    explained.errno = error.errno
    return explained


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        named = "" if error.filename is None else str(error.filename)
        if error.errno in FULL or (error.errno in READ_ONLY and named.startswith(str(path.parent))):
            raise explain(error, path) from None
        raise


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside `path` that no other writer has; the folder is made, and cleared once by each process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.path.abspath(path.parent)
    if folder not in _cleared:
        _cleared.add(folder)
        clear(path.parent)
    temporary = path.with_name(f".{path.name}.{HOST}-{os.getpid()}-{next(_numbers)}.tmp")
    name = os.path.abspath(temporary)
    _mine.add(name)
    try:
        yield temporary
    finally:
        _mine.discard(name)


def _is_left_behind(path: str, match: re.Match[str]) -> bool:
    if match["host"] != HOST:
        return False
    if int(match["pid"]) == os.getpid():
        return os.path.abspath(path).removesuffix(match["kind"]) + "tmp" not in _mine
    return not is_alive(int(match["pid"]))


def _sync_folder(folder: Path) -> None:
    """Make names in a folder survive a loss of power, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network disks cannot
                os.fsync(handle)
        finally:
            os.close(handle)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; False where the system cannot (Linux can, on most local disks)."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(first), here, os.fsencode(second), swap) == 0
