"""Batches of images. The training batch of step s is a pure function of (seed, s), so that a run can resume anywhere.

A batch is {"images": uint8 (b, c, h, w), "labels": int64 (b,), -1 where there is none, "index": int64 (b,)}; with
pairs also "second", another view of each image.
Unreadable files are left out and noted in the data set's `skipped`: worker processes report them to the main one.
"""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mage import rng
from mage.data.epoch_order import epoch_order
from mage.data.image_sets import ArrayDataset, CorruptImage, ImageDataset, locality_of
from mage.data.transforms import Transform
from mage.data.workers import compute
from mage.share import SETTING, Share

logger = logging.getLogger(__name__)
Batch = dict[str, Tensor]


class Items(NamedTuple):
    """The images of one batch, before they are stacked."""

    indices: list[int]
    images: list[Tensor]
    corrupt: list[str]
    """Files that could not be read."""
    second: list[Tensor]
    """Another view of each image, for pairs."""


class LoadedBatch(NamedTuple):
    """A worker's result: few large tensors, because sending each tensor to another process has a cost."""

    batch: Batch | None
    """None if no image could be read."""
    corrupt: list[str]
    """Files that could not be read."""


IN_MEMORY = 1 << 30
"""Bytes of the images of a data set that are kept in memory."""


class TrainLoader:
    """Endless shuffled, augmented batches from step `start` on: this process's parts of each.

    Every epoch has its own order of the images (`epoch_order`); an incomplete last batch is left out. A corrupt file is
    replaced by the next readable image of the order after this step's batch, so that no batch contains an image twice.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transform: Transform,
        *,
        share: Share,
        seed: int,
        start: int = 0,
        num_workers: int = 0,
        pairs: bool = False,
    ) -> None:
        """pairs: each image in two views, augmented independently."""
        if share.batch_size > len(dataset):
            raise ValueError(
                f"a batch of {share.batch_size} does not fit the {len(dataset)} images of {dataset.name}; "
                f"choose a batch size from 1 to {len(dataset)} ({SETTING})"
            )
        self.dataset, self.transform, self.share, self.seed = dataset, transform, share, seed
        self.start, self.num_workers, self.pairs = start, num_workers, pairs
        self._order, self._epoch = torch.empty(0, dtype=torch.int64), -1

    def __iter__(self) -> Iterator[Batch]:
        for batch, corrupt in compute(self.batch_of, itertools.count(self.start * self.share.parts), self.num_workers):
            note_corrupt(self.dataset, corrupt)
            if batch is None:
                raise none_readable(self.dataset)
            yield batch

    def batch_of(self, number: int) -> LoadedBatch:
        """Part `number` of the batches, counted over all steps."""
        return collate(self.dataset, self.items(*divmod(number, self.share.parts)))

    def items(self, step: int, part: int = 0) -> Items:
        """The images of a part of the batch of `step`; none if the whole data set is unreadable."""
        items = Items([], [], [], [])
        for epoch, index, image in self.readable(step, part, self.dataset.load, items.corrupt):
            self.augment(items, image, epoch, index)
        return items

    def readable(
        self, step: int, part: int, load: Callable[[int], Tensor], corrupt: list[str]
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Epoch, index, and what `load` gives, of the images of a part; unreadable files are added to `corrupt`."""
        per_step = self.share.batch_size
        epoch, place = divmod(step, len(self.dataset) // per_step)
        if epoch != self._epoch:
            order = epoch_order(len(self.dataset), locality_of(self.dataset), self.seed, epoch)
            self._order, self._epoch = order, epoch
        for row in self.share.rows(part):
            position = place * per_step + row
            beyond = range(position + per_step, position + per_step + len(self.dataset))
            for candidate in itertools.chain((position,), beyond):
                index = int(self._order[candidate % len(self.dataset)])
                loaded = _load(load, index, corrupt)
                if loaded is not None:
                    yield epoch, index, loaded
                    break
            else:
                return

    def augment(self, items: Items, image: Tensor, epoch: int, index: int) -> None:
        """Add the view, or the two views, of an image in an epoch."""
        items.indices.append(index)
        items.images.append(self.transform(image, rng.generator(self.seed, "augment", epoch, index)))
        if self.pairs:
            items.second.append(self.transform(image, rng.generator(self.seed, "second", epoch, index)))


def evaluation_batches(
    dataset: ImageDataset,
    transform: Transform,
    *,
    batch_size: int = 256,
    seed: int = 0,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Every readable image once, in order; with several processes, each takes every `world_size`-th.

    Raises ValueError if no image of the data set is readable.
    """
    if batch_size < 1:
        raise ValueError(f"batch size must be positive, not {batch_size}")
    _check_rank(rank, world_size)
    mine = range(rank, len(dataset), world_size)
    chunks = [mine[first : first + batch_size] for first in range(0, len(mine), batch_size)]
    return _evaluate(_Evaluation(dataset, transform, seed), chunks, num_workers)


@dataclass
class _Evaluation:
    dataset: ImageDataset
    transform: Transform
    seed: int

    def batch_of(self, indices: Sequence[int]) -> LoadedBatch:
        items = Items([], [], [], [])
        for index in indices:
            image = _load(self.dataset.load, index, items.corrupt)
            if image is not None:
                items.indices.append(index)
                items.images.append(self.transform(image, rng.generator(self.seed, "evaluate", index)))
        return collate(self.dataset, items)


def _evaluate(work: _Evaluation, chunks: list[range], num_workers: int) -> Iterator[Batch]:
    any_batch = False
    for batch, corrupt in compute(work.batch_of, chunks, num_workers):
        note_corrupt(work.dataset, corrupt)
        if batch is not None:
            any_batch = True
            yield batch
    if not any_batch:
        # a process without readable images has no batches, which is an error only if the others have none either
        others = set(range(len(work.dataset))).difference(*chunks)
        if all(_load(work.dataset.load, index, []) is None for index in others):
            raise none_readable(work.dataset)


def decode_to_memory(dataset: ImageDataset, limit_bytes: int = IN_MEMORY) -> ImageDataset:
    """Read all images into memory if they have one size and fit into `limit_bytes`; else return `dataset` unchanged.

    Unreadable files are left out, with their labels. Raises ValueError if no image is readable.
    """
    if isinstance(dataset, ArrayDataset):
        return dataset
    array = torch.empty(0, dtype=torch.uint8)
    kept: list[int] = []
    for index in range(len(dataset)):
        corrupt: list[str] = []
        image = _load(dataset.load, index, corrupt)
        note_corrupt(dataset, corrupt)
        if image is None:
            continue
        if not kept:
            if image.numel() * len(dataset) > limit_bytes:
                return dataset
            array = image.new_empty(len(dataset), *image.shape)
        if image.shape != array.shape[1:]:
            return dataset
        array[len(kept)] = image
        kept.append(index)
    if not kept:
        raise none_readable(dataset)
    labels = None if dataset.labels is None else dataset.labels[kept]
    return ArrayDataset(dataset.name, array[: len(kept)], labels, dataset.class_names, skipped=list(dataset.skipped))


def none_readable(dataset: ImageDataset) -> ValueError:
    """The error for a data set without a readable image."""
    return ValueError(f"none of the {len(dataset)} images of {dataset.name} could be read; are the files whole?")


def _load(load: Callable[[int], Tensor], index: int, corrupt: list[str]) -> Tensor | None:
    """An image; if it is unreadable, None, and its path is added to `corrupt`."""
    try:
        return load(index)
    except CorruptImage as error:
        corrupt.append(error.path)
        return None


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie between 0 and {world_size - 1} for {world_size} processes, not {rank}")


def note_corrupt(dataset: ImageDataset, paths: list[str]) -> None:
    """Remember unreadable files, and warn the first time."""
    for path in paths:
        if path not in dataset.skipped:
            dataset.skipped.append(path)
            logger.warning("skipping %s: it cannot be read as an image", path)


def collate(dataset: ImageDataset, items: Items) -> LoadedBatch:
    """Items as one batch."""
    if not items.images:
        return LoadedBatch(None, items.corrupt)
    index = torch.tensor(items.indices)
    labels = torch.full_like(index, -1) if dataset.labels is None else torch.from_numpy(dataset.labels[items.indices])
    batch = {"images": torch.stack(items.images), "labels": labels, "index": index}
    if items.second:
        batch["second"] = torch.stack(items.second)
    return LoadedBatch(batch, items.corrupt)
