"""Randomness as an argument: named generator streams, each a pure function of (seed, names).

Two draws share a stream only if their names are equal, and a stream does not depend on the number of draws from other
streams. So image 7 of seed 3 is the same whether it was generated alone, in a batch of 64 or by the third of eight
processes, and a resumed training run needs to know only its step.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names` of `seed`; different arguments give different seeds."""
    digest = hashlib.blake2b(repr((int(seed), *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator at the start of the stream called `names` of `seed`."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))


def uniform_rows(generators: Sequence[torch.Generator], length: int, like: Tensor) -> Tensor:
    """One row of `length` uniform numbers in [0, 1) from each generator, float32 on the device of `like`: (N, length).

    The numbers are drawn on the CPU, where a generator gives the same numbers on every machine.
    """
    rows = torch.stack([torch.rand(length, generator=row_generator) for row_generator in generators])
    return rows.to(like.device, non_blocking=like.is_cuda)  # see device.send


class UniformRows:
    """Rows of uniform numbers for a batch of grids, drawn and copied to their device many at a time.

    They are those of `uniform_rows` called once per row, so a grid's numbers depend neither on its batch nor on
    `ahead`.
    """

    def __init__(
        self, generators: Sequence[torch.Generator], length: int, device: torch.device, *, ahead: int = 1
    ) -> None:
        """generators: one per grid. length: numbers in a row. ahead: rows that are drawn at once."""
        self._generators, self._length, self._ahead = generators, length, ahead
        self._like = torch.empty(0, device=device)
        self._waiting: Iterator[Tensor] = iter(())

    def next(self) -> Tensor:
        """The next row of each grid: (N, length), in [0, 1)."""
        row = next(self._waiting, None)
        if row is None:
            drawn = uniform_rows(self._generators, self._ahead * self._length, self._like)
            self._waiting = iter(drawn.unflatten(1, (self._ahead, self._length)).unbind(1))
            row = next(self._waiting)
        return row


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Context with Python's and NumPy's global generators seeded; their states are restored afterwards.

    Only for libraries that do not take a generator.
    """
    kept = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
