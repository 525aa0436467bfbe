"""The sampler, apart from any network."""

import pytest
import torch
from torch import Tensor

from mage import rng
from mage.sampling.decode import UNKNOWN, decode
from mage.sampling.settings import SamplingConfig
from tests.reference.decoding import greedy_decode

LENGTH, CODES = 12, 7


def all_logits(tokens: Tensor) -> Tensor:
    """Scores that depend on what is known, so that the order of filling matters."""
    base = torch.randn(LENGTH, CODES, generator=rng.generator(3)).double()
    known = (tokens + 1).double().sum(dim=1)
    return base * (1 + 0.1 * torch.sin(known))[:, None, None]


def at_places(scores: Tensor, places: Tensor) -> Tensor:
    return scores.gather(1, places[..., None].expand(-1, -1, scores.shape[2]))


def fixed_logits(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
    return at_places(all_logits(tokens), places)


def unknown(count: int) -> Tensor:
    return torch.full((count, LENGTH), UNKNOWN)


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [rng.generator(0, "sample", first + index) for index in range(count)]


@pytest.mark.parametrize("known", [0, 3, 11, 12])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_greedy_decoding_agrees_with_plain_loops(known: int, steps: int) -> None:
    start = unknown(1)
    start[0, :known] = torch.arange(known) % CODES
    trace: list[list[bool]] = []
    result = decode(
        start,
        fixed_logits,
        generators=generators(1),
        settings=SamplingConfig(steps=steps, choice_temperature=0, token_temperature=0),
        on_step=lambda step, tokens: trace.append((tokens[0] == UNKNOWN).tolist()),
    )
    expected, expected_trace = greedy_decode(
        start[0].tolist(), lambda tokens: all_logits(torch.tensor([tokens]))[0].tolist(), steps
    )
    assert result[0].tolist() == expected
    assert trace == expected_trace


def test_known_tokens_stay_and_unknown_ones_are_filled() -> None:
    start = unknown(3)
    start[1, 2:5] = 4
    start[2] = 6
    result = decode(start, fixed_logits, generators=generators(3), settings=SamplingConfig(steps=5))
    assert (result >= 0).all()
    assert (result[start >= 0] == start[start >= 0]).all()


def test_an_image_does_not_depend_on_its_batch() -> None:
    together = decode(unknown(5), fixed_logits, generators=generators(5), settings=SamplingConfig(steps=6))
    alone = [
        decode(unknown(1), fixed_logits, generators=generators(1, first), settings=SamplingConfig(steps=6))
        for first in range(5)
    ]
    assert torch.equal(together, torch.cat(alone))
    assert len(together.unique(dim=0)) > 1


def test_only_unknown_positions_are_scored() -> None:
    start = unknown(2)
    start[0, :5] = 1
    start[1, 3:] = 2
    asked: list[Tensor] = []

    def logits(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        asked.append(places)
        return fixed_logits(tokens, places, progress)

    together = decode(start, logits, generators=generators(2), settings=SamplingConfig(steps=4))
    assert asked[0].shape == (2, 7), "as many as the grid with most unknown positions has"
    assert asked[0][0].tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert asked[0][1, :3].tolist() == [0, 1, 2]
    alone = [
        decode(start[row : row + 1], logits, generators=generators(1, row), settings=SamplingConfig(steps=4))
        for row in range(2)
    ]
    assert torch.equal(together, torch.cat(alone)), "what other grids of the batch lack changes nothing"


def test_codes_are_drawn_from_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -30.0]).expand(1, 1, 4)
    draws = torch.cat(
        [
            decode(
                torch.tensor([[UNKNOWN]]),
                lambda tokens, places, progress: logits,
                generators=[rng.generator(0, index)],
                settings=SamplingConfig(steps=1),
            )
            for index in range(4000)
        ]
    )
    share = torch.bincount(draws.flatten(), minlength=4) / len(draws)
    torch.testing.assert_close(share, logits[0, 0].softmax(dim=0), atol=0.025, rtol=0)


def test_less_confident_tokens_are_forgotten_first() -> None:
    sure = torch.zeros(1, 4, 3)
    sure[0, :, 0] = torch.tensor([1.0, 9.0, 5.0, 3.0])
    seen: list[Tensor] = []
    decode(
        torch.full((1, 4), UNKNOWN),
        lambda tokens, places, progress: at_places(sure, places),
        generators=generators(1),
        settings=SamplingConfig(steps=4, choice_temperature=0, token_temperature=0),
        on_step=lambda step, tokens: seen.append(tokens[0] != UNKNOWN),
    )
    assert [mask.tolist() for mask in seen[1:]] == [
        [False, True, False, False],
        [False, True, True, False],
        [False, True, True, True],
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "at least 1 step"),
        ({"choice_temperature": -1.0}, "must be 0 or more"),
        ({"token_temperature": -1.0}, "must be 0 or more"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings)  # type: ignore[arg-type]
