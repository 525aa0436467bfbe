"""Batches of images. The training batch of step s is a pure function of (seed, s), so that a run can resume anywhere.

A batch is {"images": uint8 (b, c, h, w), "labels": int64 (b,), -1 where there is none, "index": int64 (b,)}; with
pairs also "second", another view of each image.
Unreadable files are left out and noted in the data set's `skipped`: worker processes report them to the main one.
"""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mage import rng
from mage.data.batches import Batch
from mage.data.epoch_order import epoch_order
from mage.data.image_sets import ArrayDataset, CorruptImage, ImageDataset, load_reduced, locality_of
from mage.data.read_ahead import read_ahead
from mage.data.transforms import Transform, needed_side
from mage.data.workers import compute
from mage.share import SETTING, Share

logger = logging.getLogger(__name__)
_noted: tuple[list[str], set[str]] = [], set()
"""The list of unreadable files that was added to last, also as a set, because it may become long."""


class Items(NamedTuple):
    """The images of one batch, before they are stacked."""

    indices: list[int]
    images: list[Tensor]
    corrupt: dict[str, str]
    """Files that could not be read, with the reasons."""
    second: list[Tensor]
    """Another view of each image, for pairs."""


class LoadedBatch(NamedTuple):
    """A worker's result: few large tensors, because sending each tensor to another process has a cost."""

    batch: Batch | None
    """None if no image could be read."""
    corrupt: dict[str, str]
    """Files that could not be read, with the reasons."""


IN_MEMORY = 1 << 30
"""Bytes of the images of a data set that are kept in memory."""


class TrainLoader:
    """Endless shuffled, augmented batches from step `start` on: this process's parts of each.

    Every epoch has its own order of the images (`epoch_order`); an incomplete last batch is left out. A corrupt file is
    replaced by a readable image from outside this step's batch, of which each row has its own; a batch may contain an
    image twice where few are outside of it, or many cannot be read.
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
                raise none_readable(self.dataset, corrupt)
            yield batch

    def batch_of(self, number: int) -> LoadedBatch:
        """Part `number` of the batches, counted over all steps."""
        return collate(self.dataset, self.items(*divmod(number, self.share.parts)))

    def items(self, step: int, part: int = 0) -> Items:
        """The images of a part of the batch of `step`; none if the whole data set is unreadable."""
        items = Items([], [], {}, [])
        for epoch, index, image in self.readable(step, part, self.load, items.corrupt):
            self.augment(items, image, epoch, index)
        return items

    def load(self, index: int) -> Tensor:
        """An image, large enough for its augmentation. Raises CorruptImage."""
        return load_reduced(self.dataset, index, needed_side(self.transform))

    def readable(
        self, step: int, part: int, load: Callable[[int], Tensor], corrupt: dict[str, str]
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Epoch, index, and what `load` gives, of the images of a part; unreadable files are added to `corrupt`."""
        per_step = self.share.batch_size
        epoch, place = divmod(step, len(self.dataset) // per_step)
        if epoch != self._epoch:
            order = epoch_order(len(self.dataset), locality_of(self.dataset), self.seed, epoch)
            self._order, self._epoch = order, epoch
        for row in self.share.rows(part):
            for candidate in itertools.chain((place * per_step + row,), self._substitutes(place * per_step, row)):
                index = int(self._order[candidate % len(self.dataset)])
                loaded = _load(load, index, corrupt)
                if loaded is not None:
                    yield epoch, index, loaded
                    break
            else:
                return

    def _substitutes(self, first: int, row: int) -> Iterator[int]:
        """Places in the order, modulo its length, of what may replace a row of the batch at `first`: first its own."""
        size, total = self.share.batch_size, len(self.dataset)
        outside = range(first + size, first + total)
        yield from outside[row::size]
        for other in range(size):
            if other != row:
                yield from outside[other::size]
        yield from range(first, first + size)

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
    num_workers: int = 0,
    threads: int | None = None,
) -> Iterator[Batch]:
    """Every readable image once, in order.

    num_workers: processes that read images; without them, `threads` do if files take long (`read_ahead`).
    Raises ValueError if no image of the data set is readable.
    """
    if batch_size < 1:
        raise ValueError(f"batch size must be positive, not {batch_size}")
    every = range(len(dataset))
    chunks = [every[first : first + batch_size] for first in range(0, len(every), batch_size)]
    return _evaluate(_Evaluation(dataset, transform), chunks, num_workers, threads)


@dataclass
class _Evaluation:
    dataset: ImageDataset
    transform: Transform
    load: Callable[[int], Tensor] | None = None
    """In place of the data set's."""

    def batch_of(self, indices: Sequence[int]) -> LoadedBatch:
        items = Items([], [], {}, [])
        for index in indices:
            image = _load(self.load or self._read, index, items.corrupt)
            if image is not None:
                items.indices.append(index)
                items.images.append(self.transform(image, rng.generator(0, "evaluate", index)))
        return collate(self.dataset, items)

    def _read(self, index: int) -> Tensor:
        return load_reduced(self.dataset, index, needed_side(self.transform))


def _evaluate(work: _Evaluation, chunks: list[range], num_workers: int, threads: int | None) -> Iterator[Batch]:
    any_batch, reasons = False, dict[str, str]()
    order = itertools.chain.from_iterable(chunks)
    ahead = read_ahead(work.dataset, order, threads, at_least=needed_side(work.transform))
    with ahead if not num_workers else contextlib.nullcontext() as load:
        for batch, corrupt in compute(replace(work, load=load).batch_of, chunks, num_workers):
            note_corrupt(work.dataset, corrupt)
            reasons = reasons or corrupt
            if batch is not None:
                any_batch = True
                yield batch
    if not any_batch:
        raise none_readable(work.dataset, reasons)


def decode_to_memory(dataset: ImageDataset, limit_bytes: int = IN_MEMORY) -> ImageDataset:
    """Read all images into memory if they have one size and fit into `limit_bytes`; else return `dataset` unchanged.

    Unreadable files are left out, with their labels. Raises ValueError if no image is readable.
    """
    if isinstance(dataset, ArrayDataset):
        return dataset
    array = torch.empty(0, dtype=torch.uint8)
    kept: list[int] = []
    reasons: dict[str, str] = {}
    for index in range(len(dataset)):
        corrupt: dict[str, str] = {}
        image = _load(dataset.load, index, corrupt)
        note_corrupt(dataset, corrupt)
        reasons = reasons or corrupt
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
        raise none_readable(dataset, reasons)
    labels = None if dataset.labels is None else dataset.labels[kept]
    return ArrayDataset(dataset.name, array[: len(kept)], labels, dataset.class_names, skipped=list(dataset.skipped))


class NoneReadable(ValueError):
    """A data set has no readable image."""


def none_readable(dataset: ImageDataset, corrupt: Mapping[str, str], count: int | None = None) -> NoneReadable:
    """The error for a data set without a readable image.

    corrupt: files that could not be read, with the reasons, of which the first is told. count: images that were tried,
    if not all.
    """
    reason = next(iter(corrupt.values()), "")
    told = f" ({reason})" if reason else ""
    whole = "; are the files whole?" if not reason or reason.isidentifier() else ""  # a decoder's error, or the cause
    count = len(dataset) if count is None else count
    return NoneReadable(f"none of the {count} images of {dataset.name} could be read{told}{whole}")


def _load(load: Callable[[int], Tensor], index: int, corrupt: dict[str, str]) -> Tensor | None:
    """An image; if it is unreadable, None, and what lists it is added to `corrupt`, with the reason."""
    try:
        return load(index)
    except CorruptImage as error:
        corrupt[error.listed] = error.reason
        return None


def note_corrupt(dataset: ImageDataset, corrupt: Mapping[str, str]) -> None:
    """Remember unreadable files, and warn the first time. corrupt: files, with the reasons."""
    global _noted
    skipped = dataset.skipped
    if corrupt and (_noted[0] is not skipped or len(_noted[1]) != len(skipped)):
        _noted = skipped, set(skipped)
    for path, reason in corrupt.items():
        if path not in _noted[1]:
            skipped.append(path)
            _noted[1].add(path)
            logger.warning("skipping %s: it cannot be read as an image%s", path, f" ({reason})" if reason else "")


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
