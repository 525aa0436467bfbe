"""Batches of images. Training batch number s is a pure function of (seed, s), so that a run can resume anywhere.

A batch is {"images": uint8 (b, c, h, w), "labels": int64 (b,), -1 where there is none, "index": int64 (b,)}.
"""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from mage import rng
from mage.data.datasets import CorruptImage, ImageDataset
from mage.data.transforms import Transform

logger = logging.getLogger(__name__)
Batch = dict[str, Tensor]


class TrainLoader(IterableDataset[Batch]):
    """Endless shuffled, augmented batches from number `start_step` on; `batch_size` counts this process's share.

    Epoch e visits the images in an order of its own; a ragged end is left out. A corrupt file is replaced by the next
    image of the order. With workers, batches are made in turn by `num_workers` processes and arrive in order.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transform: Transform,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        if batch_size < 1 or batch_size * world_size > len(dataset):
            raise ValueError(
                f"a batch of {batch_size * world_size} does not fit the {len(dataset)} images of {dataset.name}; "
                "choose a batch size between 1 and that number"
            )
        self.dataset, self.transform, self.batch_size, self.seed = dataset, transform, batch_size, seed
        self.start_step, self.rank, self.world_size, self.num_workers = start_step, rank, world_size, num_workers
        self._order, self._epoch = torch.empty(0, dtype=torch.int64), -1

    def __iter__(self) -> Iterator[Batch]:
        info = torch.utils.data.get_worker_info()
        if info is None and self.num_workers:
            yield from DataLoader(self, batch_size=None, num_workers=self.num_workers)
            return
        step, stride = self.start_step, 1
        if info is not None:
            step, stride = step + info.id, info.num_workers
        while True:
            yield self.batch(step)
            step += stride

    def batch(self, step: int) -> Batch:
        """Batch number `step`."""
        per_step = self.batch_size * self.world_size
        epoch, place = divmod(step, len(self.dataset) // per_step)
        if epoch != self._epoch:
            order = torch.randperm(len(self.dataset), generator=rng.generator(self.seed, "order", epoch))
            self._order, self._epoch = order, epoch
        first = place * per_step + self.rank * self.batch_size
        return _collate(self.dataset, [self._item(first + offset, epoch) for offset in range(self.batch_size)])

    def _item(self, place: int, epoch: int) -> tuple[int, Tensor]:
        for shift in range(len(self.dataset)):
            index = int(self._order[(place + shift) % len(self.dataset)])
            try:
                image = self.dataset.load(index)
            except CorruptImage as error:
                skip(self.dataset, error)
                continue
            return index, self.transform(image, rng.generator(self.seed, "augment", epoch, index))
        raise ValueError(f"none of the {len(self.dataset)} images of {self.dataset.name} could be read")


def evaluation_batches(
    dataset: ImageDataset, transform: Transform, *, batch_size: int = 256, seed: int = 0
) -> Iterator[Batch]:
    """Every readable image once, in order. Raises ValueError if there is none."""
    items: list[tuple[int, Tensor]] = []
    found = False
    for index in range(len(dataset)):
        try:
            items.append((index, transform(dataset.load(index), rng.generator(seed, "evaluate", index))))
        except CorruptImage as error:
            skip(dataset, error)
        if len(items) == batch_size:
            found = True
            yield _collate(dataset, items)
            items = []
    if items:
        yield _collate(dataset, items)
    elif not found:
        raise ValueError(f"none of the {len(dataset)} images of {dataset.name} could be read")


def skip(dataset: ImageDataset, error: CorruptImage) -> None:
    """Remember a corrupt file, and warn the first time."""
    path = str(error)
    if path not in dataset.skipped:
        dataset.skipped.append(path)
        logger.warning("skipping %s: not readable as an image", path)


def _collate(dataset: ImageDataset, items: list[tuple[int, Tensor]]) -> Batch:
    index = torch.tensor([item[0] for item in items])
    labels = torch.full_like(index, -1) if dataset.labels is None else torch.from_numpy(dataset.labels[index.numpy()])
    return {"images": torch.stack([item[1] for item in items]), "labels": labels, "index": index}
