"""Images that are read ahead by threads, where reading takes long: files of photographs are decoded on all cores."""

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from torch import Tensor

from mage.data.image_sets import HasFiles, ImageDataset, Subset, load_reduced

SLOW = 0.003
"""Seconds to read an image from which on threads are worth what they cost."""
MOST_THREADS = 8
"""Of one data set; each keeps up to two images."""
MOST_BYTES = 1 << 28
"""Of the images that are kept, if all are like the last one: of scans and of large photographs, fewer are kept."""


class ReadAhead:
    """Loads images in a given order, of which the next ones are read in threads as soon as one has taken long."""

    def __init__(
        self, load: Callable[[int], Tensor], order: Iterable[int], executor: ThreadPoolExecutor, depth: int
    ) -> None:
        """depth: images that are read before they are asked for; 0: none, until reading is slow."""
        self._load, self._order, self._executor = load, iter(order), executor
        self._depth, self._pending = depth, dict[int, Future[Tensor]]()

    def read(self, depth: int) -> None:
        """Read so many images ahead from now on."""
        self._depth = depth

    def __call__(self, index: int) -> Tensor:
        """Image `index`, the next one of the order. Raises CorruptImage."""
        while len(self._pending) < self._depth and (following := next(self._order, None)) is not None:
            self._pending[following] = self._executor.submit(self._load, following)
        if index in self._pending:
            return self._pending.pop(index).result()
        next(self._order, None)
        return self._load(index)


@contextmanager
def read_ahead(
    dataset: ImageDataset, order: Iterable[int], threads: int | None = None, *, at_least: int = 0
) -> Iterator[Callable[[int], Tensor]]:
    """`dataset.load`, for images that are asked for in this order; of files that take long, it reads ahead in threads.

    threads: their number, from the first image on and for any data set; None: those of the machine's cores that are
    worth it. at_least: as in `load_reduced`.
    """
    read = functools.partial(load_reduced, dataset, at_least=at_least) if at_least else dataset.load
    count = threads or min(MOST_THREADS, _cores())
    if threads is None and (count == 1 or not _of_files(dataset)):
        yield read
        return
    executor = ThreadPoolExecutor(count)
    ahead, begun = ReadAhead(read, order, executor, 1 if threads else 0), bool(threads)

    def load(index: int) -> Tensor:
        nonlocal begun
        start = time.perf_counter()
        image = ahead(index)
        begun = begun or time.perf_counter() - start > SLOW
        if begun:
            ahead.read(max(1, min(2 * count, MOST_BYTES // max(1, image.nbytes))))
        return image

    try:
        yield load
    finally:
        executor.shutdown(cancel_futures=True)


def _of_files(dataset: ImageDataset) -> bool:
    """Whether images are files, which several threads can read."""
    if isinstance(dataset, Subset):
        return _of_files(dataset.dataset)
    parts: list[ImageDataset] | None = getattr(dataset, "parts", None)
    return all(map(_of_files, parts)) if parts is not None else isinstance(dataset, HasFiles)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
