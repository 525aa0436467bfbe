"""Token cache: every image encoded once, in several augmented views, as memory-mapped uint16.

Encoding images is more than half the cost of pre-training; a cache pays it once. A cache is a folder:

    index.json              key (fingerprint, transform, data set), counts, class names, skipped files, checksums
    tokens-00000.u16        (images, views, tokens) of the first shard, raw little-endian; a grid's last side fastest
    labels-00000.i32        its labels, -1 for none

Shards are written atomically, and what is encoded of the next one is kept about once a minute (`shard_encoding`), so an
interrupted `mage tokenize` continues where it stopped; repeated, it encodes shards again whose checksum tells that they
were damaged.

Letters: n images, v views, l tokens; a token grid has one, two or three dimensions.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mage import atomic, locks
from mage.data.cache_index import (
    INDEX,
    MOST_CODES,
    CacheIndex,
    CacheKey,
    damaged_file,
    labels_path,
    read_index,
    tokens_path,
    with_checksums,
    write_index,
    write_shard,
)
from mage.data.image_sets import ImageDataset, content_of, digest, sizes_of
from mage.data.shard_encoding import Begun, Views, encode_shard, remove_begun
from mage.data.transforms import TransformConfig, build_transform, describe
from mage.nn.grids import area
from mage.tokenizers import Tokenizer

logger = logging.getLogger(__name__)


class TokenCache:
    """An opened cache, from which the tokens of any image and view are read directly."""

    def __init__(self, folder: str | Path, *, read: bool = True) -> None:
        """Raises ValueError if there is no complete cache, or one that was damaged.

        read: read all of it once, for its checksums; not needed directly after `write_cache`.
        """
        self.folder = Path(folder)
        index = read_index(self.folder)
        if not index.complete:
            raise ValueError(
                f"the token cache {self.folder} is unfinished; run the same `mage tokenize` again to complete it"
            )
        self.index = index
        self.key, self.grid, self.num_codes = index.key, index.grid, index.num_codes
        self.source, self.class_names = index.source, index.class_names
        shape = (self.key.views, area(self.grid))
        parts = list(enumerate(index.shards))
        self._shards = [self._map(tokens_path(self.folder, part), (count, *shape)) for part, count in parts]
        self._ends = np.cumsum(index.shards)
        for part, count in parts:
            self._check_size(labels_path(self.folder, part), 4 * count)
        for part, _ in parts if read else ():
            if (damaged := damaged_file(self.folder, index, part)) is not None:
                raise ValueError(f"{damaged} does not fit its checksum: it was damaged; {self._remedy}")
        labels = [np.fromfile(labels_path(self.folder, part), "<i4") for part, _ in parts]
        self.labels = np.concatenate(labels).astype(np.int64)
        if self.labels.min() < -1 or (self.class_names and self.labels.max() >= len(self.class_names)):
            raise ValueError(
                f"labels of {self.folder} run from {self.labels.min()} to {self.labels.max()}, and it names "
                f"{len(self.class_names)} classes: delete {self.folder} and tokenize again"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def content(self) -> str:
        """Eight digits that identify tokens and labels; "" for caches of formats without checksums."""
        return digest(repr(self.index.checksums).encode()) if self.index.checksums else ""

    def tokens(self, images_: np.ndarray, views: np.ndarray) -> Tensor:
        """Tokens of the given images in the given views: (len, *grid) int64. Raises ValueError for damaged ones."""
        shard = np.searchsorted(self._ends, images_, side="right")
        first = np.concatenate([[0], self._ends[:-1]])[shard]
        rows = np.empty((len(images_), area(self.grid)), dtype=np.int64)
        for number in np.unique(shard):
            here = shard == number
            rows[here] = self._shards[number][images_[here] - first[here], views[here]]
        self._check_codes(rows)
        return torch.from_numpy(rows).view(-1, *self.grid)

    def shards(self) -> Iterator[np.ndarray]:
        """All tokens, (images, views, l) uint16, shard by shard. Raises ValueError for damaged ones."""
        for shard in self._shards:
            self._check_codes(shard)
            yield shard

    def _check_codes(self, rows: np.ndarray) -> None:
        if rows.size and rows.max() >= self.num_codes:
            raise ValueError(
                f"{self.folder} holds the token {rows.max()} and has {self.num_codes} codes: "
                f"delete {self.folder} and tokenize again"
            )

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raise ValueError if another tokenizer made this cache."""
        fingerprint = tokenizer.fingerprint()
        if fingerprint != self.key.tokenizer:
            raise ValueError(
                f"the token cache {self.folder} was made by tokenizer {self.key.tokenizer}, "
                f"not by this one, {fingerprint}: run `mage tokenize` with it, into another folder"
            )

    @property
    def _remedy(self) -> str:
        if self.key.tokenizer == "none" or not self.index.checksums:
            return f"delete {self.folder} and tokenize again"
        return "the same `mage tokenize` makes that part again"

    def _map(self, path: Path, shape: tuple[int, ...]) -> np.ndarray:
        """Tokens on the disk; of PyTorch's maps, because those of Python keep a file open each, of which few may be."""
        count = math.prod(shape)
        self._check_size(path, 2 * count)
        if not count:
            return np.empty(shape, "<u2")
        try:
            str(path).encode()
        except UnicodeEncodeError:  # PyTorch opens no file of such a name
            return np.memmap(path, "<u2", "r", shape=shape)
        return torch.from_file(str(path), shared=False, size=count, dtype=torch.uint16).numpy().reshape(shape)

    def _check_size(self, path: Path, expected: int) -> None:
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise ValueError(
                f"{path} has {size:,} bytes where {expected:,} are expected: it was damaged; {self._remedy}"
            )


def part_of(dataset: ImageDataset, split: str) -> str:
    """What a cache's key says of its images: the names of their files, or their values, the split and their number."""
    return f"{content_of(dataset)} {split} {len(dataset)}"


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
) -> None:
    """Encode `views` views of every image; existing shards are kept, except those that were damaged.

    source: name or folder of the data set, stored so that a run on the cache can open it again.
    encode: float images (n, C, H, W) in [0, 1] -> ids; the caller chooses device and precision.
    workers: processes that read and cut images; none: this one. The result does not depend on it.
    on_images: called with the number of images done since the last call.
    Raises ValueError if the folder holds a cache with another key, and while another process writes it.
    """
    if views < 1:
        raise ValueError(f"a cache needs at least 1 view per image, not {views}")
    if tokenizer.num_codes > MOST_CODES:
        raise ValueError(f"{tokenizer.num_codes} codes do not fit into 16 bits; the cache takes up to {MOST_CODES}")
    folder = Path(folder)
    key = CacheKey(tokenizer.fingerprint(), describe(transform), part_of(dataset, split), views, seed)
    starts = range(0, len(dataset), shard_images)
    work = Views(dataset, build_transform(transform), views, seed)
    _check_place(folder, key)
    with locks.run_lock(folder):
        index = _start(folder, key, dataset, tokenizer)
        damaged = [damaged_file(folder, index, number) for number in range(len(index.shards))]
        if index.complete and not any(damaged):
            _report(on_images, len(dataset))
            return
        index = replace(index, num_images=len(dataset), source=source, complete=False)
        for number, first in enumerate(starts):
            stop = min(first + shard_images, len(dataset))
            if number < len(damaged):
                if damaged[number] is None:
                    _report(on_images, stop - first)
                    continue
                logger.warning("%s was damaged: its images are encoded again", damaged[number])
            begun = Begun(folder, range(first, stop), views, area(index.grid), index.num_codes)
            part = encode_shard(begun, work, encode, batch_size, workers, lambda count: _report(on_images, count))
            index = write_shard(folder, index, number, part.tokens, part.labels, tuple(part.skipped), first)
            write_index(folder, index)
            remove_begun(folder)
        remove_begun(folder)  # a call that was killed had no time to
        if sum(index.shards) == 0:
            raise ValueError(f"none of the {len(dataset)} images of {dataset.name} could be read")
        write_index(folder, replace(index, complete=True))


def is_cache(path: str | Path) -> bool:
    """Whether `path` looks like a token cache."""
    return (Path(path) / INDEX).is_file()


def _check_place(folder: Path, key: CacheKey) -> None:
    """Raise ValueError for a folder that holds a cache with another key, or something else."""
    if not is_cache(folder):
        if not atomic.is_empty(folder):
            raise ValueError(f"{folder} is not empty and not a token cache; choose another folder")
        return
    index = read_index(folder)
    for name, wanted in vars(key).items():
        if getattr(index.key, name) != wanted:
            raise ValueError(
                f"{folder} holds a token cache with {name} {getattr(index.key, name)!r}, not {wanted!r}: "
                "choose another folder, or delete this one"
            )


def _start(folder: Path, key: CacheKey, dataset: ImageDataset, tokenizer: Tokenizer) -> CacheIndex:
    _check_place(folder, key)  # again, now that no other process writes there
    if is_cache(folder):
        index = read_index(folder)
        if index.sizes not in (None, sizes_of(dataset)):
            raise ValueError(
                f"{folder} holds tokens of image files that have changed since then, under the same names: choose "
                "another folder, or delete this one"
            )
        return index if index.complete else with_checksums(folder, index)
    classes, sizes = tuple(dataset.class_names), sizes_of(dataset)
    index = CacheIndex(key, tuple(tokenizer.grid), tokenizer.num_codes, classes, sizes=sizes)
    write_index(folder, index)
    return index


def _report(on_images: Callable[[int], None] | None, count: int) -> None:
    if on_images is not None:
        on_images(count)
