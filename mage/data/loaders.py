"""Batches of images. The training batch of step s is a pure function of (seed, s), so that a run can resume anywhere.

A batch is {"images": uint8 (b, c, h, w), "labels": int64 (b,), -1 where there is none, "index": int64 (b,)}; with
pairs also "second", another view of each image.
Unreadable files are left out and noted in the data set's `skipped`: worker processes report them to the main one.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mage import rng
from mage.data.datasets import ArrayDataset, CorruptImage, ImageDataset
from mage.data.transforms import Transform
from mage.share import SETTING, Share

logger = logging.getLogger(__name__)
Batch = dict[str, Tensor]
Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Items(NamedTuple):
    """The images of one batch, one by one."""

    indices: list[int]
    images: list[Tensor]
    corrupt: list[str]
    """Files that could not be read meanwhile."""
    second: list[Tensor]
    """Another view of each image, where pairs were asked for."""


class Made(NamedTuple):
    """What a worker hands over: few large tensors, because each one that crosses to another process costs."""

    batch: Batch | None
    """None if there was nothing readable."""
    corrupt: list[str]
    """Files that could not be read meanwhile."""


class TrainLoader:
    """Endless shuffled, augmented batches from step `start` on: the parts of each that are this process's share.

    Epoch e visits the images in an order of its own; a ragged end is left out. In place of a corrupt file comes the
    next readable image of the order that lies beyond this step's batch, so that no batch shows an image twice.
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
        """pairs: each image in two views, varied independently."""
        if share.batch_size > len(dataset):
            raise ValueError(
                f"a batch of {share.batch_size} does not fit the {len(dataset)} images of {dataset.name}; "
                f"choose a batch size from 1 to {len(dataset)} ({SETTING})"
            )
        self.dataset, self.transform, self.share, self.seed = dataset, transform, share, seed
        self.start, self.num_workers, self.pairs = start, num_workers, pairs
        self._order, self._epoch = torch.empty(0, dtype=torch.int64), -1

    def __iter__(self) -> Iterator[Batch]:
        for batch, corrupt in compute(self._made, itertools.count(self.start * self.share.parts), self.num_workers):
            note_corrupt(self.dataset, corrupt)
            if batch is None:
                raise none_readable(self.dataset)
            yield batch

    def _made(self, number: int) -> Made:
        return _collate(self.dataset, self.items(*divmod(number, self.share.parts)))

    def items(self, step: int, part: int = 0) -> Items:
        """The images of a part of the batch of `step`; none if the whole data set is unreadable."""
        per_step = self.share.batch_size
        epoch, place = divmod(step, len(self.dataset) // per_step)
        if epoch != self._epoch:
            order = torch.randperm(len(self.dataset), generator=rng.generator(self.seed, "order", epoch))
            self._order, self._epoch = order, epoch
        items = Items([], [], [], [])
        for row in self.share.rows(part):
            position = place * per_step + row
            beyond = range(position + per_step, position + per_step + len(self.dataset))
            for candidate in itertools.chain((position,), beyond):
                index = int(self._order[candidate % len(self.dataset)])
                image = _load(self.dataset, index, items.corrupt)
                if image is not None:
                    items.indices.append(index)
                    items.images.append(self.transform(image, rng.generator(self.seed, "augment", epoch, index)))
                    if self.pairs:
                        items.second.append(self.transform(image, rng.generator(self.seed, "second", epoch, index)))
                    break
            else:
                return Items([], [], items.corrupt, [])
        return items


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
    """Every readable image once, in order; of several processes, each takes every `world_size`-th.

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

    def made(self, indices: Sequence[int]) -> Made:
        items = Items([], [], [], [])
        for index in indices:
            image = _load(self.dataset, index, items.corrupt)
            if image is not None:
                items.indices.append(index)
                items.images.append(self.transform(image, rng.generator(self.seed, "evaluate", index)))
        return _collate(self.dataset, items)


def _evaluate(work: _Evaluation, chunks: list[range], num_workers: int) -> Iterator[Batch]:
    found = False
    for batch, corrupt in compute(work.made, chunks, num_workers):
        note_corrupt(work.dataset, corrupt)
        if batch is not None:
            found = True
            yield batch
    if not found:
        # a process whose own share is unreadable has no batches; that the others have some is no error
        others = set(range(len(work.dataset))).difference(*chunks)
        if all(_load(work.dataset, index, []) is None for index in others):
            raise none_readable(work.dataset)


def decode_to_memory(dataset: ImageDataset, limit_bytes: int = 1 << 30) -> ImageDataset:
    """Read all images now if they have one size and fit into `limit_bytes`; else the data set comes back as it was.

    Unreadable files are left out, with their labels. Raises ValueError if no image is readable.
    """
    if isinstance(dataset, ArrayDataset):
        return dataset
    array = torch.empty(0, dtype=torch.uint8)
    kept: list[int] = []
    for index in range(len(dataset)):
        corrupt: list[str] = []
        image = _load(dataset, index, corrupt)
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
    """The error for a data set that turned out to hold no readable image."""
    return ValueError(f"none of the {len(dataset)} images of {dataset.name} could be read; are the files whole?")


class _ByNumber(Dataset[Any]):
    """A function as torch's loader wants it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __getitem__(self, argument: Any) -> Any:
        return self.function(argument)


def compute(
    function: Callable[[Argument], Result], arguments: Iterable[Argument], num_workers: int
) -> Iterator[Result]:
    """function of every argument, in order; by worker processes if there are any."""
    if num_workers == 0:
        return map(function, arguments)
    # the loader would draw from the global generator if it were given none
    return iter(
        DataLoader(
            _ByNumber(function),
            sampler=arguments,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_unchanged,
            generator=torch.Generator(),
        )
    )


def _unchanged(items: Any) -> Any:
    return items


def _load(dataset: ImageDataset, index: int, corrupt: list[str]) -> Tensor | None:
    """An image; None, and a path more in `corrupt`, if it is unreadable."""
    try:
        return dataset.load(index)
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


def _collate(dataset: ImageDataset, items: Items) -> Made:
    if not items.images:
        return Made(None, items.corrupt)
    index = torch.tensor(items.indices)
    labels = torch.full_like(index, -1) if dataset.labels is None else torch.from_numpy(dataset.labels[items.indices])
    batch = {"images": torch.stack(items.images), "labels": labels, "index": index}
    if items.second:
        batch["second"] = torch.stack(items.second)
    return Made(batch, items.corrupt)
