"""Orders in which tokens become known that do not ask the network: Halton's and chance (Besnier et al. 2025).

A low-discrepancy sequence puts the tokens of one step far apart, so that those drawn at once depend little on one
another. Each image's sequence is shifted at random around the edges, else all would begin at the same place.

Letters: n images, h w grid, l tokens.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage.sampling.settings import Order


def priorities(
    order: Order, grid: tuple[int, int], generators: Sequence[torch.Generator], device: torch.device
) -> Float[Tensor, "n l"] | None:
    """One number per token: those with the smallest become known first. None where the network's confidence decides."""
    if order == "confidence":
        return None
    if order == "random":
        return torch.stack([torch.rand(grid[0] * grid[1], generator=generator) for generator in generators]).to(device)
    ranks = halton_ranks(grid)
    rows = []
    for generator in generators:
        shift = [int(torch.randint(side, (), generator=generator)) for side in grid]
        rows.append(ranks.roll(shift, (0, 1)).flatten())
    return torch.stack(rows).float().to(device)


@cache
def halton_ranks(grid: tuple[int, int]) -> Int[Tensor, "h w"]:
    """When each cell of the grid is first visited by the Halton sequence in bases 2 and 3: ranks from 0."""
    ranks = torch.full(grid, -1)
    found = 0
    for first, second in zip(radical_inverses(2), radical_inverses(3), strict=True):
        row, column = int(first * grid[0]), int(second * grid[1])
        if ranks[row, column] < 0:
            ranks[row, column] = found
            found += 1
            if found == ranks.numel():
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
