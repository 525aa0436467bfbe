"""Copies of remote shards on the local disk, in a folder of bounded size, shared by all processes of a machine.

A shard is read image by image at first. Each request costs about as much time as REQUEST_BYTES of a long answer, so
once the requests have cost as much as the whole shard would, it is copied: at most twice the cost of the better way.
"""

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from mage import atomic, locks
from mage.data.shard_index import key_of
from mage.data.storage import Stored, read

REQUEST_BYTES = 2**22
"""30 ms, a usual time until an object store answers, at 130 MB/s."""
PART_BYTES = 2**23
"""Bytes of one request while a shard is copied; each is tried again by itself."""


def copy_file(stored: Stored, path: Path) -> None:
    """Write the bytes of a stored file to `path`, atomically. Raises BrokenFile, and OSError for a full disk."""
    try:
        with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
            for start in range(0, stored.size, PART_BYTES):
                file.write(read(stored, start, min(PART_BYTES, stored.size - start)))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            f"the disk of {path.parent} is full: set MAGE_DATA to a folder on a larger disk, or "
            "--set data.shards.copies_gigabytes"
        ) from None


@dataclass(frozen=True)
class Copies:
    """A folder of copies."""

    folder: Path
    most_bytes: int
    """Bytes of all copies; those that were used longest ago are deleted. 0: nothing is copied."""

    def path(self, stored: Stored) -> Path:
        """Where the copy of a shard is, or would be."""
        return self.folder / f"{key_of(stored)}.tar"

    def worth_it(self, stored: Stored, requests: int) -> bool:
        """Whether to copy a shard of which so many images were asked for by this process."""
        return stored.size <= self.most_bytes and requests * REQUEST_BYTES >= stored.size

    def make(self, stored: Stored) -> Path:
        """Copy a shard, unless another process has. Raises BrokenFile, and OSError for a full disk."""
        path = self.path(stored)
        with locks.turns(path.with_suffix(".lock")):
            if not path.is_file():
                for left in self.folder.glob(f".{path.name}.*.tmp"):  # of a killed process
                    left.unlink(missing_ok=True)
                self._make_room(stored.size)
                copy_file(stored, path)
        return path

    def _make_room(self, size: int) -> None:
        """Delete copies that were used longest ago; a process that is reading one goes on from the store."""
        with locks.turns(self.folder / "room.lock"):
            copies = []
            for path in self.folder.glob("*.tar"):
                with contextlib.suppress(OSError):
                    status = path.stat()
                    copies.append((status.st_mtime_ns, status.st_size, path))
            total = size + sum(taken for _, taken, _ in copies)
            for _, taken, path in sorted(copies):
                if total <= self.most_bytes:
                    break
                with contextlib.suppress(OSError):  # on Windows a file that is being read
                    path.unlink()
                    total -= taken

    def used(self, stored: Stored) -> None:
        """Note that a copy is in use."""
        with contextlib.suppress(OSError):
            os.utime(self.path(stored))
