"""Token grids: the lengths of the dimensions that positions are counted along, one (sequences), two (images) or three
(clips). Positions are counted row by row: the last dimension runs fastest.
"""

import math
from collections.abc import Sequence
from typing import Any

MOST_DIMENSIONS = 3
MOST_TOKENS = 2**20
"""Largest number of tokens in a grid. Attention costs the square of it: a larger number is surely a mistake."""


def area(grid: Sequence[int]) -> int:
    """Number of tokens."""
    return math.prod(grid)


def written(grid: Sequence[int]) -> str:
    """The grid as a string, such as "4 x 16 x 16"."""
    return " x ".join(map(str, grid))


def check_grid(values: Any) -> tuple[int, ...]:
    """The sides of a grid, checked. Raises ValueError unless they are one to three positive ints."""
    sides = tuple(values) if isinstance(values, list | tuple) else ()
    if not 1 <= len(sides) <= MOST_DIMENSIONS or any(type(side) is not int or side < 1 for side in sides):
        raise ValueError(f"a grid is a list of 1 to {MOST_DIMENSIONS} positive integers, not {values!r:.80}")
    if area(sides) > MOST_TOKENS:
        raise ValueError(f"a grid of {written(sides):.80} has more than {MOST_TOKENS:,} tokens")
    return sides


def rows_and_columns(grid: Sequence[int], purpose: str) -> tuple[int, int]:
    """Sides of an image's grid. Raises ValueError for other dimensions; purpose: subject of the error's sentence."""
    if len(grid) != 2:
        raise ValueError(
            f"{purpose} needs a grid of rows and columns, not one of {written(grid)} tokens: "
            "set the tokens that are to be drawn to -1 and give them to generate_tokens(start=...)"
        )
    return grid[0], grid[1]
