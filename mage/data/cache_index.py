"""index.json of a token cache: tokenizer, transform and data set, its sizes, and which shards are complete.

The file is not trusted: every value is checked for type and bounds before anything is opened or allocated.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from mage import atomic
from mage.nn.grids import check_grid, written
from mage.settings import from_dict, to_dict

INDEX = "index.json"
FORMAT = 2
"""Newest format. 1: of mage 0.1, grids of two dimensions, sequences as (1, length); 2: grids of one to three."""
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


def read_index(folder: Path) -> CacheIndex:
    """index.json of a cache. Raises ValueError if it is missing or damaged."""
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(f"{folder} is not a token cache: {INDEX} is missing; `mage tokenize` makes one")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return from_dict(CacheIndex, json.loads(path.read_text(encoding="utf-8")), where="index")
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged or of another version of mage: {reason:.300}") from None


def write_index(folder: Path, index: CacheIndex) -> None:
    """Replace index.json."""
    atomic.write_json(folder / INDEX, to_dict(index))


def with_shard(index: CacheIndex, count: int, skipped: tuple[str, ...] = ()) -> CacheIndex:
    """The index with one more shard."""
    return replace(index, shards=(*index.shards, count), skipped=(*index.skipped, *skipped))


def tokens_path(folder: Path, number: int) -> Path:
    """Path of a shard's tokens."""
    return folder / f"tokens-{number:05d}.u16"


def labels_path(folder: Path, number: int) -> Path:
    """Path of a shard's labels."""
    return folder / f"labels-{number:05d}.i32"
