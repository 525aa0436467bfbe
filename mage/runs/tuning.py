"""Search for a model's sampler settings: steps, order, temperature and guidance with the best metric.

The published settings suit the published models. For each order and number of steps one temperature is searched: first
on a coarse grid, then between the best value and its neighbours. All candidates use the same random numbers, so that
differences come from the settings. The best few are then compared again with other random numbers, because the best of
many trials is partly a lucky one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Sampling = Mapping[str, Any]
"""Settings of SamplingConfig that differ from the model's own."""
Score = Callable[[Sampling, int], float]
"""(settings, seed) -> the metric, smaller is better."""


@dataclass(frozen=True)
class TuningConfig:
    """Settings of the search."""

    orders: tuple[str, ...] = ("confidence", "halton")
    """Orders in which tokens become known."""
    steps: tuple[int, ...] = (8, 12, 20)
    """Network passes per image."""
    choice_temperatures: tuple[float, ...] = (1.0, 3.0, 6.0, 12.0, 24.0)
    """Coarse grid for the order confidence."""
    token_temperatures: tuple[float, ...] = (0.8, 0.9, 1.0, 1.1)
    """Coarse grid for orders independent of confidence."""
    guidances: tuple[float, ...] = ()
    """Weights of the guidance, tried with the best settings so far; only for models with classes."""
    finalists: int = 3
    """Number of best settings that are compared again with other random numbers."""
    tolerance: float = 0.02
    """Fewer steps are preferred if they are worse by no more than this share."""

    def __post_init__(self) -> None:
        """Raises ValueError for empty grids."""
        if not (self.orders and self.steps and self.choice_temperatures and self.token_temperatures):
            raise ValueError("orders, steps and temperatures need at least one value each")
        if self.finalists < 1 or self.tolerance < 0:
            raise ValueError(
                f"finalists must be at least 1 and tolerance 0 or more, not {self.finalists} and {self.tolerance}"
            )


@dataclass(frozen=True)
class Trial:
    """Settings and their metric."""

    sampling: dict[str, Any]
    seed: int
    value: float


@dataclass(frozen=True)
class Tuned:
    """The best settings, and all trials."""

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
    """Search. fixed: settings of every candidate, which are not searched."""
    fixed_settings = dict(fixed or {})
    trials: list[Trial] = []

    def attempt(sampling: dict[str, Any], with_seed: int = seed) -> Trial:
        for trial in trials:
            if (trial.sampling, trial.seed) == (sampling, with_seed):
                return trial
        trials.append(Trial(sampling, with_seed, score(sampling, with_seed)))
        if on_trial is not None:
            on_trial(trials[-1])
        return trials[-1]

    candidates = []
    for order in (fixed_settings["order"],) if "order" in fixed_settings else config.orders:
        for steps in (fixed_settings["steps"],) if "steps" in fixed_settings else config.steps:
            name = "choice_temperature" if order == "confidence" else "token_temperature"
            base = fixed_settings | {"order": order, "steps": steps}
            if name in fixed_settings:
                candidates.append(attempt(base))
                continue
            grid = config.choice_temperatures if order == "confidence" else config.token_temperatures
            coarse = [attempt(base | {name: value}) for value in sorted(grid)]
            between = _between(sorted(grid), [trial.value for trial in coarse])
            candidates.append(_best([*coarse, *(attempt(base | {name: value}) for value in between)]))
    if config.guidances:
        leader = _best(candidates)
        candidates += [attempt(leader.sampling | {"guidance": weight}) for weight in config.guidances]
    candidates.sort(key=lambda trial: trial.value)
    repeated = [attempt(trial.sampling, seed + 1) for trial in candidates[: config.finalists]]
    return Tuned(_cheapest(repeated, config.tolerance), tuple(trials))


def _between(grid: Sequence[float], values: Sequence[float]) -> list[float]:
    """The midpoints between the best value of a grid and its neighbours."""
    best = min(range(len(grid)), key=lambda index: values[index])
    return [
        (grid[best] + grid[other]) / 2 for other in (best - 1, best + 1) if 0 <= other < len(grid)
    ]  # fmt: skip


def _best(trials: Sequence[Trial]) -> Trial:
    return min(trials, key=lambda trial: trial.value)


def _cheapest(trials: Sequence[Trial], tolerance: float) -> Trial:
    """The trial with the fewest steps among those about as good as the best; of these, the best."""
    best = _best(trials).value
    good = [trial for trial in trials if trial.value <= best + tolerance * abs(best)]
    return min(good, key=lambda trial: (trial.sampling["steps"], trial.value))
