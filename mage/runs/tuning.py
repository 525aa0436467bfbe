"""Search for a model's sampler settings: steps, order, temperature and guidance with the best metric.

The published settings suit the published models. For each order and number of steps one temperature is searched: first
on a coarse grid, then between the best value and its neighbours. Guidance changes which temperature is best: with the
best settings so far, guidance and temperature are searched in turn until neither improves. All candidates use the same
random numbers, so that differences come from the settings. The best few are then compared again with other random
numbers, because the best of many trials is partly a lucky one. Then the encoder sees a part of the tokens and passes
reuse what others computed, as long as the metric does not suffer. What is reported is measured once more, with random
numbers that chose nothing.
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
    """Settings of the search."""

    orders: tuple[str, ...] = ("confidence", "halton")
    """Orders in which tokens become known."""
    steps: tuple[int, ...] = (8, 12, 20)
    """Network passes per image."""
    choice_temperatures: tuple[float, ...] = (1.0, 3.0, 6.0, 12.0, 24.0)
    """Coarse grid for the order confidence."""
    token_temperatures: tuple[float, ...] = (0.6, 0.8, 1.0)
    """Coarse grid for orders independent of confidence."""
    guidances: tuple[float, ...] = ()
    """Weights of the guidance, tried with the best settings so far; only for models with classes."""
    encoder_keeps: tuple[float, ...] = ()
    """Values of `SamplingConfig.encoder_keep`, tried with the winner; the smallest that is about as good is kept."""
    reuses: tuple[int, ...] = ()
    """Values of `SamplingConfig.reuse` above 1, tried with the winner; the largest that is about as good is kept."""
    rounds: int = 3
    """Times, at most, that guidance and temperature are searched in turn; fewer where neither gets better."""
    finalists: int = 3
    """Number of best settings that are compared again with other random numbers."""
    tolerance: float = 0.02
    """Fewer steps and reused passes are preferred if they are worse by no more than this share of the metric, or of its
    distance from that of real images."""

    def __post_init__(self) -> None:
        """Raises ValueError for empty grids."""
        if not (self.orders and self.steps and self.choice_temperatures and self.token_temperatures):
            raise ValueError("orders, steps and temperatures need at least one value each")
        if self.finalists < 1 or self.rounds < 1 or self.tolerance < 0:
            raise ValueError(
                "finalists and rounds must be at least 1 and tolerance 0 or more, not "
                f"{self.finalists}, {self.rounds} and {self.tolerance}"
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
    """Measured with random numbers that chose nothing."""
    trials: tuple[Trial, ...]


def tune(
    score: Score,
    config: TuningConfig,
    *,
    fixed: Sampling | None = None,
    seed: int = 0,
    floor: float = 0.0,
    on_trial: Callable[[Trial], None] | None = None,
) -> Tuned:
    """Search. fixed: settings of every candidate, which are not searched.

    floor: the metric of as many real images. A Frechet distance of few images is large even between real ones, and a
    share of all of it would hide a lot of what samples lack.
    """
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
            name, grid = _temperatures(order, config)
            base = fixed_settings | {"order": order, "steps": steps}
            if name in fixed_settings:
                candidates.append(attempt(base))
                continue
            coarse = [attempt(base | {name: value}) for value in grid]
            between = _between(grid, [trial.value for trial in coarse])
            candidates.append(_best([*coarse, *(attempt(base | {name: value}) for value in between)]))
    if "guidance" not in fixed_settings:
        for _ in range(config.rounds if config.guidances else 0):
            leader = _best(candidates)
            candidates += [attempt(leader.sampling | {"guidance": weight}) for weight in config.guidances]
            candidates += _walk(_best(candidates), attempt, fixed_settings, config)
            if _best(candidates) == leader:
                break
    candidates = sorted(_without_repeats(candidates), key=lambda trial: trial.value)
    repeated = [attempt(trial.sampling, seed + 1) for trial in candidates[: config.finalists]]

    def about_as_good(trials: Sequence[Trial], value: float) -> list[Trial]:
        return [trial for trial in trials if trial.value <= value + config.tolerance * abs(value - floor)]

    good = about_as_good(repeated, _best(repeated).value)
    best = min(good, key=lambda trial: (trial.sampling["steps"], trial.value))
    if "encoder_keep" not in fixed_settings:
        parts = [attempt(best.sampling | {"encoder_keep": share}, seed + 1) for share in config.encoder_keeps]
        good = about_as_good([best, *parts], _best([best, *parts]).value)
        best = min(good, key=lambda trial: trial.sampling.get("encoder_keep", 1.0))
    if "reuse" not in fixed_settings:
        reused = [attempt(best.sampling | {"reuse": every}, seed + 1) for every in config.reuses]
        good = about_as_good([best, *reused], best.value)
        best = max(good, key=lambda trial: trial.sampling.get("reuse", 1))
    return Tuned(attempt(best.sampling, seed + 2), tuple(trials))


def _temperatures(order: str, config: TuningConfig) -> tuple[str, list[float]]:
    """The temperature that counts in an order, and its coarse grid."""
    if order == "confidence":
        return "choice_temperature", sorted(config.choice_temperatures)
    return "token_temperature", sorted(config.token_temperatures)


def _walk(
    leader: Trial, attempt: Callable[[dict[str, Any]], Trial], fixed_settings: Sampling, config: TuningConfig
) -> list[Trial]:
    """The better and better trials from a leader along the temperature, on its grid and half-way between."""
    name, grid = _temperatures(leader.sampling["order"], config)
    if name in fixed_settings:
        return []
    ladder = sorted({*grid, *((low + high) / 2 for low, high in pairwise(grid))})
    steps: list[Trial] = []
    while True:
        here = ladder.index(leader.sampling[name])
        neighbours = [ladder[place] for place in (here - 1, here + 1) if 0 <= place < len(ladder)]
        better = _best([leader, *(attempt(leader.sampling | {name: value}) for value in neighbours)])
        if better == leader:
            return steps
        leader = better
        steps.append(leader)


def _without_repeats(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for place, trial in enumerate(trials) if trial not in trials[:place]]


def _between(grid: Sequence[float], values: Sequence[float]) -> list[float]:
    """The midpoints between the best value of a grid and its neighbours."""
    best = min(range(len(grid)), key=lambda index: values[index])
    return [
        (grid[best] + grid[other]) / 2 for other in (best - 1, best + 1) if 0 <= other < len(grid)
    ]  # fmt: skip


def _best(trials: Sequence[Trial]) -> Trial:
    return min(trials, key=lambda trial: trial.value)
