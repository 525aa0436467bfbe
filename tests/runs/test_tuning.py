"""The search for a sampler's settings, on functions whose best is known."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from mage.runs.tuning import Trial, TuningConfig, tune


def bowl(sampling: Mapping[str, Any], seed: int) -> float:
    """Best at temperature 5 and many steps; confidence better than halton."""
    if sampling["order"] == "halton":
        return 50 + abs(sampling["token_temperature"] - 0.9)
    return 10 + abs(sampling["choice_temperature"] - 5) + 20 / sampling["steps"] - sampling.get("guidance", 0.0)


CONFIG = TuningConfig(steps=(4, 8, 32), choice_temperatures=(2.0, 4.0, 8.0))


def test_the_best_is_found_between_the_grid() -> None:
    tuned = tune(bowl, CONFIG)
    assert tuned.best.sampling == {"order": "confidence", "steps": 32, "choice_temperature": 6.0} or (
        tuned.best.sampling == {"order": "confidence", "steps": 32, "choice_temperature": 4.0}
    )
    tried = [(trial.sampling, trial.seed) for trial in tuned.trials]
    assert len(tried) == len({str(one) for one in tried}), "nothing is measured twice"
    assert {"order": "confidence", "steps": 8, "choice_temperature": 3.0} in [sampling for sampling, _ in tried]


def test_fewer_steps_win_when_about_as_good() -> None:
    tuned = tune(bowl, TuningConfig(orders=("confidence",), steps=(16, 64), tolerance=0.2))
    assert tuned.best.sampling["steps"] == 16
    assert tune(bowl, TuningConfig(orders=("confidence",), steps=(16, 64), tolerance=0.0)).best.sampling["steps"] == 64


def test_what_real_images_reach_does_not_count_as_the_samplers_fault() -> None:
    """20 % of a metric that is mostly the floor's is far more than 20 % of what samples add to it."""
    config, floor = TuningConfig(orders=("confidence",), steps=(16, 64), tolerance=0.2), 1000.0

    def raised(sampling: Mapping[str, Any], seed: int) -> float:
        return floor + bowl(sampling, seed)

    assert tune(raised, config, floor=floor).best.sampling == tune(bowl, config).best.sampling
    strict = replace(config, tolerance=0.001)
    assert tune(raised, strict).best.sampling["steps"] == 16
    assert tune(raised, strict, floor=floor).best.sampling["steps"] == 64


def test_finalists_are_compared_again_with_other_random_numbers() -> None:
    """One setting is lucky with seed 0; it does not win."""

    def lucky(sampling: Mapping[str, Any], seed: int) -> float:
        luck = seed == 0 and sampling.get("choice_temperature") == 8.0 and sampling["steps"] == 8
        return 0.0 if luck else bowl(sampling, seed)

    tuned = tune(lucky, CONFIG)
    assert min(tuned.trials, key=lambda trial: trial.value).sampling["choice_temperature"] == 8.0
    assert tuned.best.sampling["choice_temperature"] != 8.0
    assert tuned.best.seed == 2, "what is reported is measured with random numbers that chose nothing"
    assert tuned.best.sampling in [trial.sampling for trial in tuned.trials if trial.seed == 1]


def test_fixed_settings_are_not_searched_and_guidance_is_tried() -> None:
    seen: list[Trial] = []
    fixed = {"order": "confidence", "steps": 5, "top_p": 0.9}
    config = TuningConfig(guidances=(1.0, 3.0))
    tuned = tune(bowl, config, fixed=fixed, on_trial=seen.append)
    assert all(trial.sampling.items() >= fixed.items() for trial in tuned.trials)
    assert tuned.best.sampling["guidance"] == 3.0
    assert tuple(seen) == tuned.trials
    alone = tune(bowl, config, fixed=fixed | {"choice_temperature": 5.0, "guidance": 0.0})
    assert {trial.sampling["choice_temperature"] for trial in alone.trials} == {5.0}


def guided(sampling: Mapping[str, Any], seed: int) -> float:
    """Best at guidance 2 and temperature 12; each is at its best there only where the other is near its own."""
    temperature, weight = sampling["choice_temperature"], sampling.get("guidance", 0.0)
    return (temperature / 3 - 2 * weight) ** 2 + (temperature / 3 + weight - 6) ** 2


GUIDED = TuningConfig(
    orders=("confidence",), steps=(8,), choice_temperatures=(3.0, 6.0, 12.0, 24.0), guidances=(0.0, 1.0, 1.5, 2.0, 3.0)
)


def test_guidance_and_temperature_are_searched_in_turn_until_neither_gets_better() -> None:
    """Without guidance the best temperature is 9: from there one search of the guidance does not find the optimum."""
    tuned = tune(guided, GUIDED)
    settings = {"order": "confidence", "steps": 8}
    assert tuned.best.sampling == settings | {"choice_temperature": 12.0, "guidance": 2.0}
    assert tuned.best.value == 0.0
    alone = min((trial for trial in tuned.trials if "guidance" not in trial.sampling), key=lambda trial: trial.value)
    assert alone.sampling["choice_temperature"] == 9.0
    tried = [(str(trial.sampling), trial.seed) for trial in tuned.trials]
    assert len(tried) == len(set(tried)), "nothing is measured twice"
    again = [str(trial.sampling) for trial in tuned.trials if trial.seed == 1]
    assert len(again) == len(set(again)) == 3, "finalists differ"


def test_a_stated_number_of_rounds_ends_the_search() -> None:
    """Half of the way to the best temperature, 20, is left after each round: 10, 15, 17.5 ..."""

    def valley(sampling: Mapping[str, Any], seed: int) -> float:
        temperature, weight = sampling["choice_temperature"], sampling.get("guidance", 0.0)
        return (temperature - 2 * weight) ** 2 + (temperature - 20) ** 2

    grid = tuple(float(value) for value in range(2, 42, 2))
    config = TuningConfig(("confidence",), (8,), grid, guidances=tuple(value / 2 for value in range(1, 41)))

    def reached(rounds: int) -> float:
        return float(tune(valley, replace(config, rounds=rounds)).best.sampling["choice_temperature"])

    assert [reached(1), reached(2)] == [15.0, 17.0]
    assert reached(100) == 19.0, "a step of 1 gets no further"


def test_a_guidance_that_is_fixed_is_not_searched() -> None:
    tuned = tune(guided, GUIDED, fixed={"guidance": 1.0})
    assert {trial.sampling["guidance"] for trial in tuned.trials} == {1.0}
    assert tune(guided, GUIDED, fixed={"choice_temperature": 6.0}).best.sampling["choice_temperature"] == 6.0


@pytest.mark.parametrize(
    "settings", [{"orders": ()}, {"steps": ()}, {"finalists": 0}, {"rounds": 0}, {"tolerance": -1.0}]
)
def test_empty_searches_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least (one|1)"):
        TuningConfig(**settings)


def test_passes_are_reused_as_far_as_the_metric_allows() -> None:
    """A fixed reuse is not searched."""
    values = {1: 10.0, 2: 10.1, 4: 10.19, 8: 12.0}
    seen: list[Mapping[str, Any]] = []

    def score(sampling: Mapping[str, Any], seed: int) -> float:
        seen.append(sampling)
        return values[sampling.get("reuse", 1)]

    config = TuningConfig(orders=("halton",), steps=(8,), token_temperatures=(1.0,), reuses=(2, 4, 8))
    best = tune(score, config, fixed={"encoder_keep": 0.5}).best.sampling
    assert best == {"order": "halton", "steps": 8, "token_temperature": 1.0, "reuse": 4, "encoder_keep": 0.5}
    assert seen[0]["encoder_keep"] == 0.5
    seen.clear()
    assert tune(score, config, fixed={"reuse": 8}).best.sampling["reuse"] == 8
    assert {sampling["reuse"] for sampling in seen} == {8}


def test_the_encoder_sees_as_little_as_the_metric_allows() -> None:
    """A part of the tokens may be better than all: the others are then compared with it."""
    values = {1.0: 10.0, 0.5: 9.0, 0.25: 9.1, 0.1: 9.3}
    seen: list[Mapping[str, Any]] = []

    def score(sampling: Mapping[str, Any], seed: int) -> float:
        seen.append(sampling)
        return values[sampling.get("encoder_keep", 1.0)]

    config = TuningConfig(
        orders=("halton",), steps=(8,), token_temperatures=(1.0,), encoder_keeps=(0.5, 0.25, 0.1), reuses=(2,)
    )
    best = tune(score, config).best.sampling
    assert best == {"order": "halton", "steps": 8, "token_temperature": 1.0, "encoder_keep": 0.25, "reuse": 2}
    seen.clear()
    assert tune(score, config, fixed={"encoder_keep": 0.1}).best.sampling["encoder_keep"] == 0.1
    assert {sampling["encoder_keep"] for sampling in seen} == {0.1}
