"""Sine-cosine positions."""

import math

import pytest
import torch

from mage.nn.positions import sincos_positions


def test_positions_are_those_of_plain_loops() -> None:
    height, width, size = 3, 4, 12
    expected = []
    for row in range(height):
        for column in range(width):
            vector = []
            for place in (row, column):
                angles = [place * 100 ** (-index / (size // 4 - 1)) for index in range(size // 4)]
                vector += [math.sqrt(2) * math.sin(angle) for angle in angles]
                vector += [math.sqrt(2) * math.cos(angle) for angle in angles]
            expected.append(vector)
    torch.testing.assert_close(sincos_positions((height, width), size), torch.tensor(expected))


def test_positions_have_the_size_of_what_they_are_added_to() -> None:
    squares = sincos_positions((7, 5), 64).square().mean(dim=1)
    torch.testing.assert_close(squares, torch.ones(35))


def test_near_positions_look_more_alike_than_far_ones() -> None:
    table = sincos_positions((8, 8), 64).view(8, 8, 64)
    likeness = (table @ table[3, 3]) / 64
    assert likeness[3, 3] > likeness[3, 4] > likeness[3, 6]
    assert likeness[3, 4].item() == pytest.approx(likeness[4, 3].item()), "rows and columns alike"
    assert likeness.flatten().topk(2).values.diff().abs() > 1e-3, "no other place is taken for it"


@pytest.mark.parametrize("width", [2, 6, 63])
def test_a_width_that_cannot_be_divided_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 4, not {width}"):
        sincos_positions((2, 2), width)
