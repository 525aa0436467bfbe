"""Sine-cosine positions: initial values for learned positions in which neighbours are similar (MAE, appendix).

A masked position enters the decoder as one fill vector plus its position. The published initial positions are random
numbers of size 0.02, added to fill vectors of size 1: for hundreds of steps the decoder can hardly tell the positions
apart. That is negligible in a run of half a million steps, but a good part of a run of two thousand.

Letters: l positions, d width.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def sincos_positions(grid: tuple[int, ...], width: int) -> Float[Tensor, "l d"]:
    """One row per position of the grid, the last dimension fastest; mean square 1.

    Every dimension has its own part of the width, as equal as pairs of a sine and a cosine allow; the first ones get
    the remainder. Raises ValueError if the width is odd or too small for one pair per dimension.
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
