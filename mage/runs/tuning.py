"""Which sampler suits a model: steps, order, temperature and guidance, found by a metric instead of by rumour.

The published settings suit the published models. For each order and number of steps one temperature is searched: on a
coarse grid first, then between the neighbours of the best. Guidance sharpens, and so asks for another temperature:
with the best settings so far, guidance and temperature are searched in turn until neither gets better. Every candidate
draws the same random numbers, so that differences are those of the settings; the best few then meet again on other
ones, because the best of many is partly the luckiest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Sampling = Mapping[str, Any]
"""Settings of SamplingConfig that differ from the model's own."""
Score = Callable[[Sampling, int], float]
"""(settings, seed) -> the metric, smaller is better."""


@dataclass(frozen=True)
class TuningConfig:
    """What is tried."""

    orders: tuple[str, ...] = ("confidence", "halton")
    """Orders in which tokens become known."""
    steps: tuple[int, ...] = (8, 12, 20)
    """Network passes per image."""
    choice_temperatures: tuple[float, ...] = (1.0, 3.0, 6.0, 12.0, 24.0)
    """Coarse grid for the order confidence."""
    token_temperatures: tuple[float, ...] = (0.8, 0.9, 1.0, 1.1)
    """Coarse grid for orders that look at no confidence."""
    guidances: tuple[float, ...] = ()
    """Weights of the guidance, tried with the best settings so far; only for models with classes."""
    rounds: int = 3
    """Times, at most, that guidance and temperature are searched in turn; fewer where neither gets better."""
    finalists: int = 3
    """Settings that meet again with other random numbers."""
    tolerance: float = 0.02
    """Fewer steps win if they are worse by no more than this share."""

    def __post_init__(self) -> None:
        """Raises ValueError for empty grids."""
        if not (self.orders and self.steps and self.choice_temperatures and self.token_temperatures):
            raise ValueError("orders, steps and temperatures need at least one value each")
        if self.finalists < 1 or self.rounds < 1 or self.tolerance < 0:
            raise ValueError("there must be at least one finalist and one round, and a tolerance that is not negative")


@dataclass(frozen=True)
class Trial:
    """Settings and what they scored."""

    sampling: dict[str, Any]
    seed: int
    value: float


@dataclass(frozen=True)
class Tuned:
    """The settings to keep, and all that was tried."""

    best: Trial
    trials: tuple[Trial, ...]


def tune(
    score: Score,
    config: TuningConfig,
    *,
    fixed: Sampling | None = None,
    seed: int = 0,
    on_trial: Callable[[Trial], None] | None = None,
) -> Tuned:
    """Search. fixed: settings that every candidate has; what is fixed is not searched."""
    given = dict(fixed or {})
    trials: list[Trial] = []

    def attempt(sampling: dict[str, Any], with_seed: int = seed) -> Trial:
        for trial in trials:
            if (trial.sampling, trial.seed) == (sampling, with_seed):
                return trial
        trials.append(Trial(sampling, with_seed, score(sampling, with_seed)))
        if on_trial is not None:
            on_trial(trials[-1])
        return trials[-1]

    found = []
    for order in (given["order"],) if "order" in given else config.orders:
        for steps in (given["steps"],) if "steps" in given else config.steps:
            name, grid = _temperatures(order, config)
            base = given | {"order": order, "steps": steps}
            if name in given:
                found.append(attempt(base))
                continue
            coarse = [attempt(base | {name: value}) for value in grid]
            between = _between(grid, [trial.value for trial in coarse])
            found.append(_best([*coarse, *(attempt(base | {name: value}) for value in between)]))
    if "guidance" not in given:
        for _ in range(config.rounds if config.guidances else 0):
            leader = _best(found)
            found += [attempt(leader.sampling | {"guidance": weight}) for weight in config.guidances]
            found += _walk(_best(found), attempt, given, config)
            if _best(found) == leader:
                break
    found = sorted(_without_repeats(found), key=lambda trial: trial.value)
    again = [attempt(trial.sampling, seed + 1) for trial in found[: config.finalists]]
    return Tuned(_cheapest(again, config.tolerance), tuple(trials))


def _temperatures(order: str, config: TuningConfig) -> tuple[str, list[float]]:
    """The temperature that counts in an order, and its coarse grid."""
    if order == "confidence":
        return "choice_temperature", sorted(config.choice_temperatures)
    return "token_temperature", sorted(config.token_temperatures)


def _walk(
    leader: Trial, attempt: Callable[[dict[str, Any]], Trial], given: Sampling, config: TuningConfig
) -> list[Trial]:
    """The better and better trials from a leader along the temperature, on its grid and half-way between."""
    name, grid = _temperatures(leader.sampling["order"], config)
    if name in given:
        return []
    ladder = sorted({*grid, *((low + high) / 2 for low, high in pairwise(grid))})
    steps: list[Trial] = []
    while True:
        here = ladder.index(leader.sampling[name])
        beside = [ladder[place] for place in (here - 1, here + 1) if 0 <= place < len(ladder)]
        better = _best([leader, *(attempt(leader.sampling | {name: value}) for value in beside)])
        if better == leader:
            return steps
        leader = better
        steps.append(leader)


def _without_repeats(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for place, trial in enumerate(trials) if trial not in trials[:place]]


def _between(grid: Sequence[float], values: Sequence[float]) -> list[float]:
    """The two midpoints beside the best value of a grid; one at its end."""
    best = min(range(len(grid)), key=lambda index: values[index])
    return [
        (grid[best] + grid[other]) / 2 for other in (best - 1, best + 1) if 0 <= other < len(grid)
    ]  # fmt: skip


def _best(trials: Sequence[Trial]) -> Trial:
    return min(trials, key=lambda trial: trial.value)


def _cheapest(trials: Sequence[Trial], tolerance: float) -> Trial:
    """The fewest steps among those about as good as the best, and of these the best."""
    best = _best(trials).value
    good = [trial for trial in trials if trial.value <= best + tolerance * abs(best)]
    return min(good, key=lambda trial: (trial.sampling["steps"], trial.value))
