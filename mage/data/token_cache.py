"""Token cache: every image encoded once, in several augmented views, as memory-mapped uint16.

Encoding images is more than half the cost of pre-training; a cache pays it once. A cache is a folder:

    index.json              what made it (fingerprint, transform, data set), counts, class names, skipped files
    tokens-00000.u16        (images, views, tokens) of the first shard, raw little-endian
    labels-00000.i32        its labels, -1 where there is none

A shard appears whole or not at all, so an interrupted `mage tokenize` goes on where it stopped.

Letters: n images, v views, h w token grid.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mage import atomic, images, rng
from mage.data.datasets import CorruptImage, ImageDataset, content_of
from mage.data.loaders import compute
from mage.data.transforms import Transform, TransformConfig, build_transform, describe
from mage.tokenizers import Tokenizer

INDEX = "index.json"
FORMAT = 1


@dataclass(frozen=True)
class CacheKey:
    """What a cache's tokens depend on."""

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


class TokenCache:
    """An opened cache: tokens of image i in view j, without reading anything else."""

    def __init__(self, folder: str | Path) -> None:
        """Raises ValueError where there is no complete cache."""
        self.folder = Path(folder)
        index = read_index(self.folder)
        if not index["complete"]:
            raise ValueError(
                f"the token cache {self.folder} is unfinished; run the same `mage tokenize` again to complete it"
            )
        self.index = index
        self.key = CacheKey(**index["key"])
        height, width = index["grid"]
        self.grid = (height, width)
        self.num_codes = int(index["num_codes"])
        self.source: str | None = index.get("source")
        """The data set by name, or its folder; None where it is not known, as of caches of 0.1."""
        self.class_names: tuple[str, ...] = tuple(index["class_names"])
        shape = (self.key.views, height * width)
        self._shards = [self._map(number, (count, *shape)) for number, count in enumerate(index["shards"])]
        self._ends = np.cumsum(index["shards"])
        labels = [np.fromfile(labels_path(self.folder, number), "<i4") for number in range(len(self._shards))]
        self.labels = np.concatenate(labels).astype(np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def tokens(self, images_: np.ndarray, views: np.ndarray) -> Tensor:
        """Tokens of the given images in the given views: (len, h, w) int64."""
        shard = np.searchsorted(self._ends, images_, side="right")
        first = np.concatenate([[0], self._ends[:-1]])[shard]
        rows = np.empty((len(images_), self.grid[0] * self.grid[1]), dtype=np.int64)
        for number in np.unique(shard):
            here = shard == number
            rows[here] = self._shards[number][images_[here] - first[here], views[here]]
        return torch.from_numpy(rows).view(-1, *self.grid)

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raise ValueError if another tokenizer made this cache."""
        fingerprint = tokenizer.fingerprint()
        if fingerprint != self.key.tokenizer:
            raise ValueError(
                f"the token cache {self.folder} was made by tokenizer {self.key.tokenizer}, "
                f"not by this one, {fingerprint}: run `mage tokenize` with it, into another folder"
            )

    def _map(self, number: int, shape: tuple[int, ...]) -> np.ndarray:
        path = tokens_path(self.folder, number)
        expected = math.prod(shape) * 2
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise ValueError(
                f"{path} has {size:,} bytes where {expected:,} are expected: delete {self.folder} and tokenize again"
            )
        return np.memmap(path, dtype="<u2", mode="r", shape=shape)


def write_cache(
    folder: str | Path,
    dataset: ImageDataset,
    tokenizer: Tokenizer,
    transform: TransformConfig,
    *,
    split: str = "train",
    source: str | None = None,
    views: int,
    seed: int,
    encode: Callable[[Tensor], Tensor],
    batch_size: int = 256,
    shard_images: int = 16384,
    workers: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> TokenCache:
    """Encode `views` views of every image; complete shards that are there already are kept.

    source: where the data set comes from, by name or folder: noted, so that a run on the cache can open it again.
    encode: float images (n, C, H, W) in [0, 1] -> ids; the caller chooses device and precision.
    workers: processes that read and cut images; none: this one. The result does not depend on it.
    on_images: called with the number of images done since the last call.
    Raises ValueError if the folder holds a cache with another key.
    """
    if views < 1:
        raise ValueError(f"a cache needs at least 1 view per image, not {views}")
    if tokenizer.num_codes > 2**16:
        raise ValueError(f"{tokenizer.num_codes} codes do not fit into 16 bits; the cache takes up to {2**16}")
    folder = Path(folder)
    key = CacheKey(
        tokenizer.fingerprint(), describe(transform), f"{content_of(dataset)} {split} {len(dataset)}", views, seed
    )
    index = _start(folder, key, dataset, tokenizer)
    starts = list(range(0, len(dataset), shard_images))
    work = _Views(dataset, build_transform(transform), views, seed)
    index |= {"num_images": len(dataset), "source": source}
    for number, first in enumerate(starts):
        stop = min(first + shard_images, len(dataset))
        if number < len(index["shards"]):
            _report(on_images, stop - first)
            continue
        tokens, labels, skipped = _encode_shard(work, range(first, stop), encode, batch_size, workers, on_images)
        atomic.write_bytes(tokens_path(folder, number), tokens.astype("<u2").tobytes())
        atomic.write_bytes(labels_path(folder, number), np.asarray(labels, "<i4").tobytes())
        index["shards"].append(len(labels))
        index["skipped"] += skipped
        atomic.write_json(folder / INDEX, index)
    if sum(index["shards"]) == 0:
        raise ValueError(f"none of the {len(dataset)} images of {dataset.name} could be read")
    atomic.write_json(folder / INDEX, {**index, "complete": True})
    return TokenCache(folder)


def read_index(folder: Path) -> dict[str, Any]:
    """index.json of a cache. Raises ValueError where it is missing or damaged."""
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
        if index["format"] != FORMAT:
            raise ValueError(f"{folder} has format {index['format']}; this version of mage reads {FORMAT}")
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a token cache: {INDEX} is missing; `mage tokenize` makes one") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / INDEX} is damaged ({type(error).__name__})") from None
    return index


def is_cache(path: str | Path) -> bool:
    """Whether `path` looks like a token cache."""
    return (Path(path) / INDEX).is_file()


def _start(folder: Path, key: CacheKey, dataset: ImageDataset, tokenizer: Tokenizer) -> dict[str, Any]:
    if is_cache(folder):
        index = read_index(folder)
        for name, wanted in vars(key).items():
            if index["key"][name] != wanted:
                raise ValueError(
                    f"{folder} holds a token cache with {name} {index['key'][name]!r}, not {wanted!r}: "
                    "choose another folder, or delete this one"
                )
        return index
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty and not a token cache; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    index = new_index(key, tokenizer.grid, tokenizer.num_codes, dataset.class_names)
    atomic.write_json(folder / INDEX, index)
    return index


def new_index(key: CacheKey, grid: tuple[int, int], num_codes: int, class_names: Sequence[str]) -> dict[str, Any]:
    """index.json of a cache without shards."""
    return {
        "format": FORMAT,
        "complete": False,
        "key": vars(key),
        "grid": list(grid),
        "num_codes": num_codes,
        "class_names": list(class_names),
        "shards": [],
        "skipped": [],
    }


@dataclass(frozen=True)
class _Views:
    """Cuts views out of images; worker processes get a copy."""

    dataset: ImageDataset
    apply: Transform
    views: int
    seed: int

    def __call__(self, indices: range) -> tuple[Tensor | None, list[int], list[str], int]:
        """Views (images x views, c, H, W) uint8, labels, unreadable files, and the number of images asked for."""
        pixels: list[Tensor] = []
        labels: list[int] = []
        skipped: list[str] = []
        for index in indices:
            try:
                image = self.dataset.load(index)
            except CorruptImage as error:
                skipped.append(error.path)
                continue
            pixels += [self.apply(image, rng.generator(self.seed, "view", index, view)) for view in range(self.views)]
            labels.append(-1 if self.dataset.labels is None else int(self.dataset.labels[index]))
        return torch.stack(pixels) if pixels else None, labels, skipped, len(indices)


def _encode_shard(
    work: _Views,
    chosen: range,
    encode: Callable[[Tensor], Tensor],
    batch_size: int,
    workers: int,
    on_images: Callable[[int], None] | None,
) -> tuple[np.ndarray, list[int], list[str]]:
    parts: list[np.ndarray] = []
    labels: list[int] = []
    skipped: list[str] = []
    per_batch = max(1, batch_size // work.views)
    chunks = [chosen[first : first + per_batch] for first in range(0, len(chosen), per_batch)]
    for pixels, found, corrupt, count in compute(work, chunks, workers):
        if pixels is not None:
            ids = encode(images.to_float(pixels))
            parts.append(ids.cpu().numpy().reshape(-1, work.views, ids[0].numel()))
        labels += found
        skipped += corrupt
        _report(on_images, count)
    empty = np.empty((0, work.views, 1))
    return (np.concatenate(parts) if parts else empty), labels, skipped


def _report(on_images: Callable[[int], None] | None, count: int) -> None:
    if on_images is not None:
        on_images(count)


def tokens_path(folder: Path, number: int) -> Path:
    """A shard's tokens."""
    return folder / f"tokens-{number:05d}.u16"


def labels_path(folder: Path, number: int) -> Path:
    """A shard's labels."""
    return folder / f"labels-{number:05d}.i32"
