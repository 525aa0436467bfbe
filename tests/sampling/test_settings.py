"""Settings of the sampler: ramps and what is refused."""

from typing import Any

import pytest

from mage.sampling.settings import SamplingConfig


def test_the_token_temperature_ramps_from_first_to_last_step() -> None:
    config = SamplingConfig(steps=5, token_temperature=1.0, token_temperature_end=0.2)
    assert [config.token_temperature_at(step / 5) for step in range(1, 6)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert SamplingConfig(steps=3).token_temperature_at(0.4) == 1
    assert SamplingConfig(steps=1, token_temperature_end=0.5).token_temperature_at(1.0) == 1
    for steps in range(2, 200):
        rising = SamplingConfig(steps=steps, token_temperature=0.0, token_temperature_end=0.5)
        assert 0 <= rising.token_temperature_at(1 / steps) < 1e-9, "a negative one would draw the least probable codes"


def complete_passes(**settings: Any) -> list[int]:
    config = SamplingConfig(**settings)
    return [step for step in range(config.steps) if config.complete_at((step + 1) / config.steps)]


def test_complete_passes_are_spread_over_the_tokens_that_become_known() -> None:
    assert complete_passes(steps=6, reuse=1) == [0, 1, 2, 3, 4, 5]
    assert complete_passes(steps=8, reuse=4, schedule="linear") == [0, 4], "half of the tokens are known"
    assert complete_passes(steps=20, reuse=5) == [0, 10, 14, 17], "the cosine leaves most tokens for the end"
    assert complete_passes(steps=3, reuse=100) == [0]


def test_guidance_follows_its_schedule() -> None:
    def weights(**settings: Any) -> list[float]:
        config = SamplingConfig(steps=4, guidance=2.0, **settings)
        return [config.guidance_at(step / 4) for step in range(1, 5)]

    assert weights(guidance_schedule="constant") == [2, 2, 2, 2]
    assert weights(guidance_schedule="linear") == [0.5, 1, 1.5, 2]
    assert weights(guidance_schedule="interval", guidance_interval=(0.4, 0.8)) == [0, 2, 2, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "at least 1 step"),
        ({"token_temperature": float("nan")}, "0 or more and finite"),
        ({"choice_temperature": -1.0}, "temperatures must be 0 or more"),
        ({"token_temperature_end": -0.1}, "temperatures must be 0 or more"),
        ({"encoder_keep": 0.0}, "encoder_keep"),
        ({"power": 0.0}, "power"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"revisions": -1}, "revisions"),
        ({"revise_share": 1.5}, "revise_share"),
        ({"guidance": -1.0}, "guidance"),
        ({"guidance_interval": (0.5, 0.5)}, "guidance"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings)


def test_an_unknown_order_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="there is no order 'foo'; there are confidence, halton, random"):
        SamplingConfig(order="foo")


@pytest.mark.parametrize("name", ["schedule", "revise_by", "guidance_schedule"])
def test_unknown_words_are_refused_with_the_known_ones(name: str) -> None:
    config = SamplingConfig()
    object.__setattr__(config, name, "foo")  # types are checked in tests before the settings can check themselves
    with pytest.raises(ValueError, match=rf"{name} must be one of .*, not 'foo'"):
        config.__post_init__()
