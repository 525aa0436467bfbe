"""index.json of a token cache: tokenizer, transform and data set, its sizes, and which shards are complete.

The file is not trusted: every value is checked for type and bounds before anything is opened or allocated. It holds
the checksums of the shards' files and of itself, so that a flipped bit is noticed before anything learns from it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mage import atomic, checksums
from mage.nn.grids import check_grid, written
from mage.settings import from_dict, to_dict

INDEX = "index.json"
FORMAT = 3
"""Newest format. 1: of mage 0.1, grids of two dimensions, sequences as (1, length); 2: grids of one to three; 3: with
checksums."""
MOST_BYTES = 2**26
"""Largest size of index.json, enough for the paths of half a million unreadable images."""
MOST_CODES = 2**16
"""Largest number of codes, because a token takes two bytes."""
MOST_VIEWS = 2**16
MOST_IMAGES = 2**40


@dataclass(frozen=True)
class CacheKey:
    """Everything that a cache's tokens depend on."""

    tokenizer: str
    """Fingerprint of the tokenizer's weights."""
    transform: str
    """Description of the augmentation."""
    data: str
    """Content and split of the data set, and its number of images."""
    views: int
    """Augmented views per image."""
    seed: int
    """Seed of the augmentation."""

    def __post_init__(self) -> None:
        if not 1 <= self.views <= MOST_VIEWS:
            raise ValueError(f"key.views must lie from 1 to {MOST_VIEWS:,}, not {self.views!r:.40}")


@dataclass(frozen=True)
class CacheIndex:
    """Content of index.json."""

    key: CacheKey
    grid: tuple[int, ...]
    """Sides of a token grid, of one to three dimensions."""
    num_codes: int
    """Tokens are 0 to num_codes - 1."""
    class_names: tuple[str, ...] = ()
    format: int = FORMAT
    complete: bool = False
    shards: tuple[int, ...] = ()
    """Images in each complete shard."""
    skipped: tuple[str, ...] = ()
    """Paths of images that could not be read."""
    num_images: int | None = None
    """Images of the data set, including unreadable ones; None before the first shard."""
    source: str | None = None
    """The data set by name, or its folder; None if unknown, as in caches of 0.1."""
    checksums: tuple[tuple[str, str], ...] = ()
    """Of each shard's tokens and labels; of the first two formats there are none."""
    sizes: str | None = None
    """Hash of the sizes of some of the image files, which tells files of the same names that have changed."""

    def __post_init__(self) -> None:
        if not 1 <= self.format <= FORMAT:
            raise ValueError(f"format {self.format!r:.40}; this version of mage reads 1 to {FORMAT}")
        check_grid(self.grid)
        if self.format == 1 and len(self.grid) != 2:
            raise ValueError(f"format 1 has grids of two dimensions, not of {written(self.grid)}")
        if not 2 <= self.num_codes <= MOST_CODES:
            raise ValueError(f"num_codes must lie from 2 to {MOST_CODES:,}, not {self.num_codes!r:.40}")
        if not all(0 <= count <= MOST_IMAGES for count in self.shards):
            raise ValueError(f"shards must be numbers of images, not {self.shards!r:.80}")
        if self.complete and not sum(self.shards):
            raise ValueError("it is marked complete, but holds no image")
        if len(self.checksums) != (len(self.shards) if self.format > 2 else 0):
            raise ValueError(f"it has {len(self.shards)} shards and checksums of {len(self.checksums)}")


def read_index(folder: Path) -> CacheIndex:
    """index.json of a cache. Raises ValueError if it is missing or damaged."""
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(f"{folder} is not a token cache: {INDEX} is missing; `mage tokenize` makes one")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return from_dict(CacheIndex, checksums.unsealed(json.loads(path.read_text(encoding="utf-8"))), where="index")
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged or of another version of mage: {reason:.300}") from None


def write_index(folder: Path, index: CacheIndex) -> None:
    """Replace index.json."""
    atomic.write_json(folder / INDEX, checksums.sealed(to_dict(index)))


def write_shard(
    folder: Path,
    index: CacheIndex,
    number: int,
    tokens: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    skipped: tuple[str, ...] = (),
    first: int = 0,
) -> CacheIndex:
    """Write the files of a shard; the index with it, the next shard or one that is replaced.

    tokens: (images, views, l); labels: (images,); skipped: paths of the shard's images that could not be read;
    first: place of its first image in the data set.
    """
    files = _files_of(tokens, labels)
    for path, data in zip((tokens_path(folder, number), labels_path(folder, number)), files, strict=True):
        atomic.write_bytes(path, data)
    return _with_shard(index, number, len(labels), files, skipped, first)


def finished(index: CacheIndex, shards: Sequence[tuple[np.ndarray, np.ndarray]]) -> CacheIndex:
    """The index that a cache of these shards, tokens and labels, has when it is complete; nothing is written."""
    for number, (tokens, labels) in enumerate(shards):
        index = _with_shard(index, number, len(labels), _files_of(tokens, labels))
    return replace(index, complete=True)


def _files_of(tokens: np.ndarray, labels: Sequence[int] | np.ndarray) -> tuple[bytes, bytes]:
    return tokens.astype("<u2").tobytes(), np.asarray(labels, "<i4").tobytes()


def _with_shard(
    index: CacheIndex,
    number: int,
    count: int,
    files: tuple[bytes, bytes],
    skipped: tuple[str, ...] = (),
    first: int = 0,
) -> CacheIndex:
    sums = (checksums.of_bytes(files[0]), checksums.of_bytes(files[1]))
    if number < len(index.shards):
        start = max(0, first - sum(index.shards[:number]))  # each unreadable image before it has its path
        stop = start + max(0, count + len(skipped) - index.shards[number])
        return replace(
            index,
            shards=(*index.shards[:number], count, *index.shards[number + 1 :]),
            checksums=(*index.checksums[:number], sums, *index.checksums[number + 1 :]),
            skipped=(*index.skipped[:start], *skipped, *index.skipped[stop:]),
        )
    return replace(
        index,
        shards=(*index.shards, count),
        checksums=(*index.checksums, sums),
        skipped=(*index.skipped, *skipped),
    )


def with_checksums(folder: Path, index: CacheIndex) -> CacheIndex:
    """An unfinished index of an older format in the newest one, so that it can be continued."""
    if index.format == FORMAT:
        return index
    files = [(tokens_path(folder, number), labels_path(folder, number)) for number in range(len(index.shards))]
    sums = tuple((checksums.of_file(tokens), checksums.of_file(labels)) for tokens, labels in files)
    return replace(index, format=FORMAT, checksums=sums)


def damaged_file(folder: Path, index: CacheIndex, number: int) -> Path | None:
    """The file of a shard that does not fit its checksum or is missing; None if both do, or have none."""
    if not index.checksums:
        return None
    labels = labels_path(folder, number)
    if labels.is_file() and labels.stat().st_size != 4 * index.shards[number]:
        return labels
    for path, expected in zip(
        (tokens_path(folder, number), labels_path(folder, number)), index.checksums[number], strict=True
    ):
        if not path.is_file() or checksums.of_file(path) != expected:
            return path
    return None


def tokens_path(folder: Path, number: int) -> Path:
    """Path of a shard's tokens."""
    return folder / f"tokens-{number:05d}.u16"


def labels_path(folder: Path, number: int) -> Path:
    """Path of a shard's labels."""
    return folder / f"labels-{number:05d}.i32"
