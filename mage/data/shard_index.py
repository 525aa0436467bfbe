"""The index of a shard: where each of its images lies, and what its label is.

With it any image is read directly, so that training may begin at any image and in any order. `mage shards` writes the
index beside the shard, as NAME.tar.index.json. For shards of other programs it is made when they are first opened, by
reading each once, and kept in a cache folder. An index is not trusted: every value is checked against the shard.

Members belong together by their names up to the first dot, as in WebDataset: 000123.jpg, 000123.cls, 000123.json.
"""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from mage import atomic
from mage.data.storage import BrokenFile, Stored, read, read_small
from mage.data.tar_members import Member, TarReader

logger = logging.getLogger(__name__)
SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")
"""Members that are images."""
FORMAT = 1
BESIDE = ".index.json"
MOST_LABEL = 2**20
"""Largest size of a .cls or .json member, in bytes."""
MOST_IMAGE = 2**30
"""Largest size of an image's file, in bytes."""
MOST_INDEX = 2**30
LABEL_KEYS = ("label", "cls", "class")


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """All images of a shard, as columns, because there may be many millions."""

    size: int
    """Bytes of the shard."""
    names: np.ndarray
    """UTF-8 names of the members, (n,) bytes."""
    places: Int64[np.ndarray, "n 2"]
    """Position of the first byte in the shard, and number of bytes."""
    labels: tuple[str | None, ...]
    """Name or number of each image's class."""

    def to_json(self) -> str:
        """The index as JSON."""
        names, (starts, sizes) = [bytes(name).decode() for name in self.names], self.places.T.tolist()
        columns = {"names": names, "starts": starts, "sizes": sizes, "labels": self.labels}
        return json.dumps({"format": FORMAT, "size": self.size, **columns}, separators=(",", ":"))

    def chosen(self, mask: Bool[np.ndarray, " n"]) -> "ShardIndex":
        """The index of some of the images."""
        labels = tuple(label for label, kept in zip(self.labels, mask, strict=True) if kept)
        return ShardIndex(self.size, self.names[mask], self.places[mask], labels)


def shard_index(
    size: int, names: Sequence[str], places: Sequence[tuple[int, int]], labels: Sequence[str | None]
) -> ShardIndex:
    """The index of images that are given as lists."""
    encoded = np.array([name.encode() for name in names], dtype=np.bytes_)
    interned = tuple(None if label is None else sys.intern(label) for label in labels)
    return ShardIndex(size, encoded, np.array(places, dtype=np.int64).reshape(-1, 2), interned)


def index_of(stored: Stored, cache: Path) -> ShardIndex:
    """The index beside a shard, the one in the cache folder, or a new one, which is kept there. Raises BrokenFile."""
    beside = stored.name + BESIDE
    index = None if _is_older(beside, stored.name) else _parsed(read_small(beside, MOST_INDEX), stored)
    kept = cache / f"{key_of(stored)}{BESIDE}"
    if index is None:
        index = _parsed(read_small(str(kept), MOST_INDEX), stored)
    if index is None:
        index = make_index(stored)
        try:
            atomic.write_text(kept, index.to_json())
        except OSError as error:
            logger.warning("the index of %s is not kept, and is made again next time: %s", stored.name, error)
    return index


def _is_older(index: str, shard: str) -> bool:
    """Whether the file of an index is older than its shard, whose labels may have been corrected in place."""
    try:
        return os.stat(index).st_mtime_ns < os.stat(shard).st_mtime_ns
    except (OSError, ValueError):
        return False  # of shards that are no files here


def key_of(stored: Stored) -> str:
    """Name of what is kept of a shard, of this version of it."""
    return hashlib.sha256(repr(stored).encode()).hexdigest()[:24]


def make_index(stored: Stored, fetch: Callable[[Stored, int, int], bytes] = read) -> ShardIndex:
    """Read the headers and labels of a shard. Raises BrokenFile."""
    reader = TarReader(stored, fetch)
    pictures: dict[str, Member] = {}
    labels: dict[str, str | None] = {}
    for member in reader.members():
        key, suffix = split_name(member.name)
        if suffix in SUFFIXES:
            if key in pictures:
                raise BrokenFile(
                    stored.name, f"holds two images called {key!r:.80}: {pictures[key].name}, {member.name}"
                )
            if member.size > MOST_IMAGE:
                raise BrokenFile(stored.name, f"holds an image of {member.size:,} bytes, {member.name!r:.80}")
            pictures[key] = member
        elif suffix == "cls" or (suffix == "json" and key not in labels):
            label = label_in(suffix, reader.content(member, MOST_LABEL))
            if label is not None:
                labels[key] = label
    files = pictures.values()
    places = [(member.start, member.size) for member in files]
    return shard_index(stored.size, [member.name for member in files], places, [labels.get(key) for key in pictures])


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member: its name up to the first dot behind the last slash, and the rest in lower case.

    Hidden files, such as ._000123.jpg of macOS, have no suffix.
    """
    folder, slash, file = name.rpartition("/")
    key, _, suffix = file.partition(".")
    return folder + slash + key, suffix.lower() if key else ""


def label_in(suffix: str, data: bytes) -> str | None:
    """The class in a .cls file, or under one of LABEL_KEYS in a .json file; None if there is none."""
    text = data.decode("utf-8", "replace")
    if suffix == "cls":
        return text.strip()[:1000] or None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found: Any = next((values[key] for key in LABEL_KEYS if key in values), None) if isinstance(values, dict) else None
    return str(found)[:1000] if isinstance(found, int | str) and not isinstance(found, bool) and found != "" else None


def _parsed(data: bytes | None, stored: Stored) -> ShardIndex | None:
    """The index in a file; None if there is none, or it is not that of this shard."""
    try:
        values = json.loads(data or b"")
        names, labels = values["names"], values["labels"]
        places = list(zip(values["starts"], values["sizes"], strict=True))
        if values["format"] != FORMAT or values["size"] != stored.size or not len(names) == len(labels) == len(places):
            return None
        texts = all(isinstance(name, str) for name in names) and all(isinstance(la, str | None) for la in labels)
        inside = all(
            type(start) is type(size) is int and 0 < start <= start + size <= stored.size and 0 <= size <= MOST_IMAGE
            for start, size in places
        )
        return shard_index(stored.size, names, places, labels) if texts and inside else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
