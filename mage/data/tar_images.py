"""Images in tar shards, on disk or in an object store: read one by one, in any order, and never unpacked.

Letters: n images, c channels, h height, w width.
"""

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from mage import images
from mage.data.epoch_order import Locality
from mage.data.image_folders import hold_out
from mage.data.image_sets import CorruptImage, Labels, digest
from mage.data.shard_copies import Copies
from mage.data.shard_index import ShardIndex, index_of
from mage.data.shard_names import shard_names
from mage.data.storage import BrokenFile, Stored, default_root, is_url, look_at, read

logger = logging.getLogger(__name__)

MOST_NUMBERED = 100_000
"""Classes that are given by numbers below this are these numbers; larger ones are names like others."""
NOTED_EVERY = 64
"""Images of a copied shard between two notes that it is in use."""
FORGOTTEN_AFTER = 300.0
"""Seconds after which a broken shard is tried again: a store may have been out of reach for a while."""
AT_ONCE = 16
"""Shards whose indices are read at the same time."""


@dataclass(frozen=True)
class ShardConfig:
    """How tar shards are read."""

    window: int = 16
    """Shards whose images are mixed at a time in training."""
    skip_broken: bool = False
    """Leave out shards that are missing, cut off or damaged, and count them, instead of stopping."""
    copies_gigabytes: float = 64.0
    """Room on the local disk for copies of remote shards; 0: every image is a request to the store."""

    def __post_init__(self) -> None:
        if self.window < 1 or not self.copies_gigabytes >= 0:
            raise ValueError(
                f"data.shards: window must be at least 1 and copies_gigabytes 0 or more, not {self.window} and "
                f"{self.copies_gigabytes}"
            )


class TarDataset:
    """Images in shards, in the order of the shards and of their members."""

    def __init__(
        self,
        name: str,
        parts: Sequence[tuple[Stored, ShardIndex]],
        channels: int,
        class_names: tuple[str, ...] | None,
        config: ShardConfig,
    ) -> None:
        """parts: shards with their images. class_names: None if there are no labels."""
        self.shards, indices = [stored for stored, _ in parts], [index for _, index in parts]
        shard = np.repeat(np.arange(len(parts)), [len(index.names) for index in indices]).astype(np.int64)
        self.locality = Locality(shard, config.window)
        self._places = np.concatenate([index.places for index in indices])
        # one array of bytes, because a million strings would be copied to every worker
        self._names = np.concatenate([index.names for index in indices])
        self.class_names: tuple[str, ...] = class_names or ()
        self.labels: Labels | None = None
        if class_names is not None:
            number = {label: place for place, label in enumerate(class_names)}
            labels = (number[str(label)] for index in indices for label in index.labels)
            self.labels = np.fromiter(labels, dtype=np.int64, count=len(shard))
        self.content = digest(b"".join(index.to_json().encode() for index in indices))
        self.name = f"{name}-{self.content}"
        self.skipped = list[str]()
        self.channels, self._config = channels, config
        self._above = len(_common_folder([stored.name for stored in self.shards]))
        self._copies = Copies(default_root() / "shards", int(config.copies_gigabytes * 1e9))
        self._requests = np.zeros(len(parts), dtype=np.int64)
        self._broken: dict[int, tuple[BrokenFile, float]] = {}  # with the time

    def __len__(self) -> int:
        return len(self._names)

    def file_name(self, index: int) -> str:
        """Shard and name of image `index`: photos-000012.tar/00000123.jpg."""
        shard = self.shards[self.locality.shard[index]].name[self._above :].lstrip("/")
        return f"{shard}/{bytes(self._names[index]).decode()}"

    def names(self) -> list[str]:
        """The same of all images."""
        return [self.file_name(index) for index in range(len(self))]

    def version(self, index: int) -> tuple[int, int]:
        """Bytes of image `index`, and a number that changes with its shard."""
        stored = self.shards[self.locality.shard[index]]
        number = int(stored.version) if stored.version.isdigit() else int(digest(stored.version.encode()), 16)
        return int(self._places[index, 1]), number % 2**63

    def file_bytes(self, index: int) -> bytes:
        """The file of image `index`. Raises BrokenFile; CorruptImage instead if broken shards are to be skipped."""
        shard = int(self.locality.shard[index])
        try:
            if shard in self._broken:  # known by now, so that its other images cost no further tries
                error, since = self._broken[shard]
                if time.monotonic() - since < FORGOTTEN_AFTER:
                    raise error
            return self._read(shard, *map(int, self._places[index]))
        except BrokenFile as error:
            if shard not in self._broken or self._broken[shard][0] is not error:
                self._broken[shard] = error, time.monotonic()
            if self._config.skip_broken:
                raise CorruptImage(self._place(index), f"the shard {error.reason}", error.name) from None
            raise

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Image `index`. Raises CorruptImage, and BrokenFile for a shard that is out of reach."""
        return self.load_reduced(index, 0)

    def load_reduced(self, index: int, at_least: int) -> UInt8[Tensor, "c h w"]:
        """The same; a large JPEG file is read smaller."""
        data = self.file_bytes(index)
        try:
            return images.from_bytes(data, self.channels, at_least=at_least)
        except ValueError as error:
            raise CorruptImage.of(self._place(index), error) from None

    def _place(self, index: int) -> str:
        """Whole name of the shard, and name of image `index` in it."""
        return f"{self.shards[self.locality.shard[index]].name}/{bytes(self._names[index]).decode()}"

    def _read(self, shard: int, start: int, size: int) -> bytes:
        stored = self.shards[shard]
        if not is_url(stored.name):
            return read(stored, start, size)
        copy = self._copies.path(stored)
        if self._requests[shard] % NOTED_EVERY == 0:
            self._copies.used(stored)
        self._requests[shard] += 1
        if not copy.is_file() and self._copies.worth_it(stored, int(self._requests[shard])):
            self._copies.make(stored)
        try:
            with open(copy, "rb") as file:
                file.seek(start)
                return file.read(size)
        except FileNotFoundError:  # not copied, or deleted to make room
            return read(stored, start, size)


def _common_folder(names: Sequence[str]) -> str:
    """The deepest folder that holds all files of these names."""
    first, last = (name.split("/")[:-1] for name in (min(names), max(names)))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "/".join(part for part, _ in same)


def open_shards(
    name: str | Path, *, split: str = "all", channels: int = 3, config: ShardConfig | None = None
) -> TarDataset:
    """The images of the shards that a name stands for (`shard_names`).

    split: of a folder with train/ (and test/); otherwise a tenth of the images, chosen by name, is the test split.
    Raises ValueError if there are no shards or images, and for a broken shard unless the configuration skips it.
    """
    if channels not in images.PIL_MODES:
        raise ValueError(f"images in shards have 1 (grey) or 3 (RGB) channels, not {channels}")
    config = config or ShardConfig()
    own, others = shard_names(name, split)
    parts, broken = _opened(own, config)
    classes = _classes([index for _, index in parts])
    if classes is not None and others:  # of both splits, so that a class has one number even if one lacks it
        there = [index for _, index in _opened(others, config)[0]]
        classes = _classes([index for _, index in parts] + there) if _classes(there) is not None else classes
    if others == [] and split != "all":
        parts = _held(parts, split)
    if not any(len(index.names) for _, index in parts):
        left = f"; {len(broken)} broken shards were skipped" if broken else ""
        raise ValueError(f"{name} holds no images{left}: members are KEY.jpg, KEY.png or KEY.webp, KEY without a dot")
    stem = str(name).rstrip("/").rpartition("/")[2].removesuffix(".tar") or str(name)
    dataset = TarDataset(stem, parts, channels, classes, config)
    dataset.skipped += broken
    return dataset


def _opened(names: Sequence[str], config: ShardConfig) -> tuple[list[tuple[Stored, ShardIndex]], list[str]]:
    """Shards with their indices, and the names of those that are broken."""
    cache = default_root() / "shards"

    def one(name: str) -> tuple[Stored, ShardIndex] | BrokenFile:
        try:
            stored = look_at(name)
            return stored, index_of(stored, cache)
        except BrokenFile as error:
            if not config.skip_broken:
                raise
            return error

    opened, broken = [], []
    for result in _in_threads(one, names):
        if isinstance(result, BrokenFile):
            broken.append(result.name)
            logger.warning("skipping the shard %s", result)
        else:
            opened.append(result)
    return opened, broken


def _in_threads(
    function: Callable[[str], tuple[Stored, ShardIndex] | BrokenFile], names: Sequence[str]
) -> list[tuple[Stored, ShardIndex] | BrokenFile]:
    """Results in order; after an error nothing further begins."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = [pool.submit(function, name) for name in names]
        try:
            return [result.result() for result in waiting]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _held(parts: list[tuple[Stored, ShardIndex]], split: str) -> list[tuple[Stored, ShardIndex]]:
    """The images of a split, a tenth of which is for testing, by the names of shard and image."""
    names = [
        [f"{stored.name.rpartition('/')[2]}/{bytes(name).decode()}" for name in index.names] for stored, index in parts
    ]
    chosen = set(hold_out([name for inside in names for name in inside], split))
    masks = [np.array([name in chosen for name in inside], dtype=bool) for inside in names]
    return [(stored, index.chosen(mask)) for (stored, index), mask in zip(parts, masks, strict=True)]


def _classes(indices: Sequence[ShardIndex]) -> tuple[str, ...] | None:
    """Names of all classes, numbers in their own order; None unless every image has a label."""
    labels = {label for index in indices for label in index.labels}
    if None in labels or not labels:
        if len(labels) > 1:
            logger.warning("some images of the shards have no label: all are read without labels")
        return None
    names = {str(label) for label in labels}
    if all(name.isascii() and name.isdigit() and name == str(int(name)) for name in names):
        largest = max(map(int, names))
        return tuple(map(str, range(largest + 1))) if largest < MOST_NUMBERED else tuple(sorted(names, key=int))
    return tuple(sorted(names))
