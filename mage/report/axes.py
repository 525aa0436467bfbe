"""Axes for charts: round tick values on linear and logarithmic scales, and the map from values to pixels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Axis:
    """Maps `low..high` to `start..end` pixels."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def pixel(self, value: float) -> float:
        """Position of a value in pixels."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def label(self, tick: float) -> str:
        """A tick's value, with as many decimals as distinguish neighbouring ticks."""
        if self.logarithmic or tick == 0:
            if 0 < abs(tick) < 1e-4:
                return f"{tick:.0e}"
            return f"{tick:,.0f}" if abs(tick) >= 1 or tick == 0 else f"{tick:.5f}".rstrip("0").rstrip(".")
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else abs(tick)
        if max(map(abs, self.ticks)) >= 1e7 or step < 1e-4:
            return f"{tick:.3g}"
        # a step of 0.25 needs one decimal more than its power of ten
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        decimals += 0 if math.isclose(step * 10**decimals, round(step * 10**decimals), rel_tol=1e-6) else 1
        return f"{tick:,.{decimals}f}"


def linear_axis(low: float, high: float, start: float, end: float, *, count: int = 5, tight: bool = False) -> Axis:
    """An axis with about `count` round ticks that ends at ticks, or with `tight` at `low` and `high`."""
    if high <= low:
        margin = abs(low) / 10 or 1.0
        low, high = low - margin, high + margin
    step = nice_step((high - low) / max(1, count))
    if not tight:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, start, end, tuple(index * step for index in range(first, last + 1)))


def log_axis(low: float, high: float, start: float, end: float) -> Axis:
    """A logarithmic axis with ticks at 1, 2 and 5 times powers of ten, or if these are many, at powers of ten."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    fine = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 2, 5)]
    inside = [tick for tick in fine if low <= tick <= high]
    if len(inside) > 7:
        inside = [10.0**power for power in range(first, last + 1) if low <= 10.0**power <= high]
    return Axis(low, high, start, end, tuple(inside), logarithmic=True)


def grows_by_factors(values: Iterable[float]) -> bool:
    """Whether there are at least three different values, positive, each at least twice the one before."""
    distinct = sorted(set(values))
    return len(distinct) > 2 and distinct[0] > 0 and all(after >= 2 * before for before, after in pairwise(distinct))


def factors_axis(values: Iterable[float], start: float, end: float) -> Axis:
    """A logarithmic axis from the smallest to the largest value, with a tick at each."""
    ticks = tuple(sorted(set(values)))
    return Axis(ticks[0], ticks[-1], start, end, ticks, logarithmic=True)


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= rough * (1 - 1e-9))
