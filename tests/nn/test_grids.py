"""Sides of token grids, as they come from files and from users."""

from typing import Any

import pytest

from mage.nn.grids import area, check_grid, rows_and_columns, written


@pytest.mark.parametrize(
    ("sides", "tokens", "text"), [([64], 64, "64"), ((3, 5), 15, "3 x 5"), ([2, 3, 4], 24, "2 x 3 x 4")]
)
def test_one_two_and_three_sides_are_a_grid(sides: Any, tokens: int, text: str) -> None:
    grid = check_grid(sides)
    assert grid == tuple(sides)
    assert (area(grid), written(grid)) == (tokens, text)


@pytest.mark.parametrize(
    "values", [[], [2, 2, 2, 2], [0], [4, -1], [4.0], ["4"], [True], [None], None, 4, "44", {"4": 4}, [[4]], [10**4000]]
)
def test_invalid_grids_are_refused_in_one_sentence(values: Any) -> None:
    with pytest.raises(ValueError, match=r"a grid (is a list of 1 to 3 positive integers|of 10+ has more)") as error:
        check_grid(values)
    assert len(str(error.value)) < 200


def test_too_large_a_grid_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ValueError, match="more than 1,048,576 tokens"):
        check_grid([2**10, 2**10, 2])


def test_functions_for_images_refuse_the_grid_of_a_clip() -> None:
    assert rows_and_columns((4, 6), "a mask") == (4, 6)
    with pytest.raises(
        ValueError, match=r"a mask needs a grid of rows and columns, not one of 2 x 4 x 6 tokens: .*start="
    ):
        rows_and_columns((2, 4, 6), "a mask")
