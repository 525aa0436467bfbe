"""Sine-cosine positions: a start for learned positions in which neighbours look alike (MAE, appendix).

A masked position enters the decoder as one fill vector plus its position. The published start, random numbers of size
0.02 beside fill vectors of size 1, hides where a token is for the first hundreds of steps; that is nothing in a run of
half a million steps and a good part of one of two thousand.

Letters: l positions, d width.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def sincos_positions(grid: tuple[int, ...], width: int) -> Float[Tensor, "l d"]:
    """One row per position of the grid, the last dimension fastest; mean square 1.

    Every dimension has its own part of the width, as equal as pairs of a sine and a cosine allow; the first ones get
    what is left over. Raises ValueError where the width is odd or has no pair for each dimension.
    """
    pairs, over = divmod(width // 2, len(grid))
    if width % 2 or not pairs:
        raise ValueError(
            f"sine-cosine positions on {len(grid)} dimensions need an even width of at least {2 * len(grid)}, "
            f"not {width}"
        )
    waves = []
    places = torch.meshgrid(*(torch.arange(side).float() for side in grid), indexing="ij")
    for number, place in enumerate(places):
        frequencies = 100.0 ** -torch.linspace(0, 1, pairs + (number < over))
        angles = place.flatten()[:, None] * frequencies
        waves += [angles.sin(), angles.cos()]
    return torch.cat(waves, dim=1) * 2**0.5
