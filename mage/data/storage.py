"""Bytes of files, on disk or in an object store such as s3://bucket/name: sizes, lists, ranges, with retries.

Every answer is tried TRIES times, with WAITS seconds between them, before the file counts as broken. Names with a
protocol are read by fsspec, which comes with the extra `remote`; each store has its own package for fsspec.
"""

import glob
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

WAITS = (0.5, 2.0, 8.0)
"""Seconds before the second, third and fourth try."""
TRIES = len(WAITS) + 1
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
"""Longest time until S3 accepts a connection, and between two parts of an answer."""
PACKAGES = {
    "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "http": "aiohttp", "https": "aiohttp", "memory": "fsspec",
}  # fmt: skip
"""Protocols that are read, and the package that each takes. Others of fsspec run programs, or hide a second address."""
Answer = TypeVar("Answer")


class BrokenFile(ValueError):
    """A file that is missing, cut off, damaged or out of reach; `reason` says which, after its name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


@dataclass(frozen=True)
class Stored:
    """A file as it was when it was looked at."""

    name: str
    """Path or URL."""
    size: int
    """Bytes."""
    version: str
    """Changes when the content does: time of a file, tag of an object."""


def default_root() -> Path:
    """The folder of named data sets, and of what is kept from one run for the next: MAGE_DATA, else ~/.cache/mage."""
    return Path(os.environ.get("MAGE_DATA") or "~/.cache/mage").expanduser()


def check_not_remote(name: str) -> None:
    """Raise ValueError for data in a store that a recipe names: others must not decide what this machine contacts."""
    if is_url(name):
        raise ValueError(f"the recipe of this model names {name} as its data, which is read only if you say so: --data")


def is_url(name: str | Path) -> bool:
    """Whether a name has a protocol, as s3://bucket/name has."""
    return "://" in str(name)


def check_url(url: str) -> None:
    """Raise ValueError for a protocol that is not read."""
    protocol = url.partition("://")[0]
    if protocol not in PACKAGES or "::" in url:
        raise ValueError(f"{url} has the protocol {protocol!r}; it may be one of {', '.join(PACKAGES)}")


def look_at(name: str) -> Stored:
    """Size and version of a file. Raises BrokenFile."""
    if not is_url(name):
        if not os.path.isfile(name):
            raise BrokenFile(name, "is missing")
        status = _patiently(name, lambda: os.stat(name))
        return Stored(name, status.st_size, str(status.st_mtime_ns))
    details = _patiently(name, lambda: _store(name).info(name))
    size = details.get("size")
    if details.get("type") != "file" or size is None:
        raise BrokenFile(name, "has no size: it is a folder, or its server does not tell the size")
    version = details.get("ETag") or details.get("etag") or details.get("LastModified") or details.get("mtime") or ""
    return Stored(name, int(size), str(version))


def read(stored: Stored, start: int, count: int) -> bytes:
    """`count` bytes from `start` on. Raises BrokenFile, also if the file has become shorter."""

    def attempt() -> bytes:
        if is_url(stored.name):
            data = bytes(_store(stored.name).cat_file(stored.name, start=start, end=start + count)) if count else b""
        else:
            with open(stored.name, "rb") as file:
                file.seek(start)
                data = file.read(count)
        if len(data) != count:
            raise OSError(f"{len(data):,} bytes came where {count:,} were asked for")
        return data

    return _patiently(stored.name, attempt)


def read_small(name: str, most: int) -> bytes | None:
    """The whole of a small file; None if there is none. Raises BrokenFile for more than `most` bytes."""
    try:
        if not (_store(name).exists(name) if is_url(name) else os.path.isfile(name)):
            return None
    except OSError:
        return None
    stored = look_at(name)
    if stored.size > most:
        raise BrokenFile(name, f"has {stored.size:,} bytes; such a file has at most {most:,}")
    return read(stored, 0, stored.size)


def matches(pattern: str) -> list[str]:
    """Names of the files that a pattern with *, ? or [] matches, sorted; a list of a folder is such a pattern."""
    if not is_url(pattern):
        return sorted(Path(path).as_posix() for path in glob.glob(pattern) if os.path.isfile(path))
    protocol = pattern.partition("://")[0]
    found = _patiently(pattern, lambda: _store(pattern).glob(pattern))
    return sorted(f"{protocol}://{str(name).lstrip('/')}" for name in found)


def _store(url: str) -> Any:
    """fsspec's file system for a URL; fsspec keeps one for each process."""
    check_url(url)
    protocol = url.partition("://")[0]
    settings: dict[str, Any] = {}
    if protocol == "s3":
        waiting = {"connect_timeout": CONNECT_SECONDS, "read_timeout": ANSWER_SECONDS}
        settings["config_kwargs"] = waiting | {"retries": {"max_attempts": 0}}  # one place that retries: this file
    try:
        import fsspec

        return fsspec.filesystem(protocol, use_listings_cache=False, **settings)
    except ImportError:
        package = PACKAGES[protocol]
        advice = "mage-vision[remote]" if package in ("s3fs", "fsspec") else package
        raise ValueError(f'reading {protocol}:// takes the package {package}: pip install "{advice}"') from None


def _patiently(name: str, attempt: Callable[[], Answer]) -> Answer:
    """The answer of `attempt`, tried TRIES times. Raises BrokenFile with the last problem."""
    problem = ""
    for wait in (*WAITS, None):
        try:
            return attempt()
        except ValueError:
            raise  # a missing package or a wrong name does not get better
        except Exception as error:  # each store has exceptions of its own
            problem = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({_short(error)})"
        if wait is not None:
            logger.info("%s %s; trying again in %g s", name, problem, wait)
            time.sleep(wait)
    raise BrokenFile(name, f"{problem}, tried {TRIES} times")


def _short(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:160]}" if words else type(error).__name__
