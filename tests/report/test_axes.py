"""Axes: round ticks, the map to pixels, and labels that can be told apart."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mage.report.axes import linear_axis, log_axis, nice_step

NUMBERS = st.floats(-1e4, 1e4).map(lambda value: round(value, 3))


@given(st.floats(1e-9, 1e9))
def test_a_step_is_round_and_not_much_larger_than_needed(rough: float) -> None:
    step = nice_step(rough)
    assert rough * (1 - 1e-6) <= step <= 2 * rough * (1 + 1e-6)
    digits = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(digits - nice) for nice in (1, 2, 2.5, 5)) < 1e-6


@given(low=NUMBERS, high=NUMBERS, count=st.integers(2, 8))
def test_a_linear_axis_goes_from_tick_to_tick_and_holds_all_values(low: float, high: float, count: int) -> None:
    assume(high - low > 0.01)
    axis = linear_axis(low, high, 300, 20, count=count)
    assert axis.low <= low + 1e-6
    assert axis.high >= high - 1e-6
    assert axis.ticks[0] == pytest.approx(axis.low, abs=1e-6)
    assert axis.ticks[-1] == pytest.approx(axis.high, abs=1e-6)
    assert 2 <= len(axis.ticks) <= count + 3
    labels = [axis.label(tick) for tick in axis.ticks]
    assert len(set(labels)) == len(labels)
    assert [float(label.replace(",", "")) for label in labels] == pytest.approx(list(axis.ticks), abs=1e-6)


@given(low=NUMBERS, high=NUMBERS)
def test_a_tight_axis_ends_where_the_values_end(low: float, high: float) -> None:
    assume(high - low > 0.01)
    axis = linear_axis(low, high, 10, 900, tight=True)
    assert (axis.low, axis.high) == (low, high)
    assert axis.ticks, "and has something to read"
    assert all(low - 1e-6 <= tick <= high + 1e-6 for tick in axis.ticks)


@pytest.mark.parametrize("value", [0.0, 3.0, -200.0])
def test_a_single_value_gets_room_around_it(value: float) -> None:
    axis = linear_axis(value, value, 0, 100)
    assert axis.low < value < axis.high
    assert 0 < axis.pixel(value) < 100


def test_values_are_mapped_evenly_or_by_their_logarithm() -> None:
    axis = linear_axis(0, 10, 300, 100)
    assert [axis.pixel(value) for value in (0, 2.5, 10)] == pytest.approx([300, 250, 100])
    axis = log_axis(0.01, 100, 300, 100)
    assert [axis.pixel(value) for value in (0.01, 0.1, 1, 100)] == pytest.approx([300, 250, 200, 100])


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.8, 30, ["1", "2", "5", "10", "20"]),
        (0.009, 0.5, ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5"]),
        (0.0005, 2000, ["0.001", "0.01", "0.1", "1", "10", "100", "1,000"]),
    ],
)
def test_a_logarithmic_axis_has_fine_ticks_while_they_are_few(low: float, high: float, labels: list[str]) -> None:
    axis = log_axis(low, high, 0, 100)
    assert [axis.label(tick) for tick in axis.ticks] == labels


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 1.25, ["0", "0.25", "0.50", "0.75", "1.00", "1.25"]),
        (0, 20000, ["0", "5,000", "10,000", "15,000", "20,000"]),
        (-2, 2, ["-2", "-1", "0", "1", "2"]),
    ],
)
def test_labels_have_the_decimals_that_neighbours_need(low: float, high: float, labels: list[str]) -> None:
    axis = linear_axis(low, high, 0, 100)
    assert [axis.label(tick) for tick in axis.ticks] == labels
