"""Sine-cosine positions."""

import itertools
import math

import pytest
import torch

from mage.nn.positions import sincos_positions


@pytest.mark.parametrize(
    ("grid", "size", "pairs"),
    [((5,), 6, [3]), ((3, 4), 12, [3, 3]), ((2, 3, 4), 18, [3, 3, 3]), ((2, 3, 4), 16, [3, 3, 2])],
)
def test_positions_are_those_of_plain_loops(grid: tuple[int, ...], size: int, pairs: list[int]) -> None:
    """pairs: of a sine and a cosine, for each dimension."""
    expected = []
    for places in itertools.product(*(range(side) for side in grid)):
        vector = []
        for place, count in zip(places, pairs, strict=True):
            angles = [place * 100 ** (-index / (count - 1)) for index in range(count)]
            vector += [math.sqrt(2) * math.sin(angle) for angle in angles]
            vector += [math.sqrt(2) * math.cos(angle) for angle in angles]
        expected.append(vector)
    torch.testing.assert_close(sincos_positions(grid, size), torch.tensor(expected))


@pytest.mark.parametrize("grid", [(35,), (7, 5), (2, 3, 4)])
def test_positions_have_the_size_of_what_they_are_added_to(grid: tuple[int, ...]) -> None:
    squares = sincos_positions(grid, 64).square().mean(dim=1)
    torch.testing.assert_close(squares, torch.ones(math.prod(grid)))


def test_near_positions_look_more_alike_than_far_ones() -> None:
    table = sincos_positions((8, 8), 64).view(8, 8, 64)
    likeness = (table @ table[3, 3]) / 64
    assert likeness[3, 3] > likeness[3, 4] > likeness[3, 6]
    assert likeness[3, 4].item() == pytest.approx(likeness[4, 3].item()), "rows and columns alike"
    assert likeness.flatten().topk(2).values.diff().abs() > 1e-3, "no other place is taken for it"


@pytest.mark.parametrize(
    ("grid", "width", "least"), [((4,), 0, 2), ((4,), 63, 2), ((2, 2), 2, 4), ((2, 2), 63, 4), ((2, 2, 2), 4, 6)]
)
def test_a_width_that_cannot_be_divided_is_refused(grid: tuple[int, ...], width: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"even width of at least {least}, not {width}"):
        sincos_positions(grid, width)
