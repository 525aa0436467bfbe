"""Orders in which tokens become known: by the network's confidence, or independent of it (Halton, random).

A low-discrepancy sequence places the tokens of one step far apart, so that tokens drawn together depend little on one
another (Besnier et al. 2025). Each image's sequence is shifted at random, with wrap-around, so that images begin at
different positions.

A new order is a function registered in ORDERS: (grid, generators) -> one number per token, row by row; tokens with the
smallest numbers become known first. None: the network's confidence decides. Random numbers for an image must come from
that image's generator alone, so that an image does not depend on the rest of its batch.

Letters: n images, l tokens of a grid of one, two or three dimensions.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage.nn.grids import area
from mage.registry import Registry

Order = Callable[[tuple[int, ...], Sequence[torch.Generator]], Tensor | None]
"""(sides of the grid, one generator per image) -> (n, l) on the CPU, or None."""
ORDERS: Registry[Order] = Registry(kind="order", group="mage.orders")
BASES = (2, 3, 5)
"""Bases of the Halton sequence, one for each dimension of a grid."""


def priorities(
    order: str, grid: tuple[int, ...], generators: Sequence[torch.Generator], device: torch.device
) -> Float[Tensor, "n l"] | None:
    """One number per token: the smallest become known first. None: the network's confidence decides.

    Raises ValueError if the order returns numbers of another shape.
    """
    numbers = ORDERS.get(order)(grid, generators)
    if numbers is None:
        return None
    expected = (len(generators), area(grid))
    if tuple(numbers.shape) != expected:
        raise ValueError(
            f"the order {order!r} gave numbers of shape {tuple(numbers.shape)} for {len(generators)} grids of "
            f"{' x '.join(map(str, grid))} tokens; it must give one per token: {expected}"
        )
    return numbers.float().to(device)


@ORDERS.register("confidence")
def by_confidence(grid: tuple[int, ...], generators: Sequence[torch.Generator]) -> None:
    """The paper's: the tokens with the largest confidence first."""


@ORDERS.register("halton")
def by_halton(grid: tuple[int, ...], generators: Sequence[torch.Generator]) -> Int[Tensor, "n l"]:
    """Evenly spread over the grid, from a first position that differs from image to image."""
    ranks = halton_ranks(grid)
    rows = []
    for generator in generators:
        shift = [int(torch.randint(side, (), generator=generator)) for side in grid]
        rows.append(ranks.roll(shift, tuple(range(len(grid)))).flatten())
    return torch.stack(rows)


@ORDERS.register("random")
def by_chance(grid: tuple[int, ...], generators: Sequence[torch.Generator]) -> Float[Tensor, "n l"]:
    """A random order for each image."""
    return torch.stack([torch.rand(area(grid), generator=generator) for generator in generators])


@cache
def halton_ranks(grid: tuple[int, ...]) -> Int[Tensor, "*grid"]:
    """Rank, from 0, of each cell's first visit by the Halton sequence in bases 2, 3 and 5.

    Raises ValueError for more than three dimensions.
    """
    if len(grid) > len(BASES):
        raise ValueError(f"the order halton takes grids of up to {len(BASES)} dimensions, not {len(grid)}; take random")
    ranks = torch.full(grid, -1)
    visited = 0
    for places in zip(*(radical_inverses(base) for base in BASES[: len(grid)]), strict=True):
        cell = tuple(int(place * side) for place, side in zip(places, grid, strict=True))
        if ranks[cell] < 0:
            ranks[cell] = visited
            visited += 1
            if visited == ranks.numel():
                break
    return ranks


def radical_inverses(base: int) -> Iterator[float]:
    """1, 2, 3, ... with their digits in `base` mirrored at the point: the van der Corput sequence, in (0, 1)."""
    for number in itertools.count(1):
        value, unit = 0.0, 1.0
        while number:
            number, digit = divmod(number, base)
            unit /= base
            value += digit * unit
        yield value
