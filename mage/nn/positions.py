"""Two-dimensional sine-cosine positions: a start for learned positions in which neighbours look alike (MAE, appendix).

A masked position enters the decoder as one fill vector plus its position. The published start, random numbers of size
0.02 beside fill vectors of size 1, hides where a token is for the first hundreds of steps; that is nothing in a run of
half a million steps and a good part of one of two thousand.

Letters: l positions, d width.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def sincos_positions(grid: tuple[int, int], width: int) -> Float[Tensor, "l d"]:
    """One row per position of the grid, row by row; mean square 1. Half the width is the row's, half the column's."""
    if width % 4:
        raise ValueError(f"sine-cosine positions need a width that is a multiple of 4, not {width}")
    frequencies = 100.0 ** -torch.linspace(0, 1, width // 4)
    rows, columns = torch.meshgrid(*(torch.arange(side).float() for side in grid), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (rows, columns)]
    waves = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
    return torch.cat(waves, dim=1) * 2**0.5
