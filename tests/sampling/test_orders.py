"""Orders of decoding, revisions, guidance."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mage import rng
from mage.sampling.classes import class_numbers, drawn_classes
from mage.sampling.decode import UNKNOWN, decode
from mage.sampling.guidance import guided
from mage.sampling.orders import priorities
from mage.sampling.revise import own_likelihood, revise
from mage.sampling.settings import SamplingConfig

GRID = (8, 8)
KINDS: tuple[str, str] = ("halton", "random")


def streams(count: int) -> list[torch.Generator]:
    return [rng.generator(0, "order", index) for index in range(count)]


def halton(index: int, base: int) -> float:
    """Radical inverse with plain loops: digits of `index` mirrored behind the point."""
    value, scale = 0.0, 1.0 / base
    while index:
        value += (index % base) * scale
        index, scale = index // base, scale / base
    return value


def unevenness(priority: Tensor | None) -> float:
    """How far apart the quarters of the image are in their share of the first 16 tokens; mean over images."""
    assert priority is not None
    first = priority.argsort(dim=1)[:, :16]
    quarter = first // 8 // 4 * 2 + first % 8 // 4
    counts = torch.stack([(quarter == number).sum(dim=1) for number in range(4)])
    return float((counts.max(dim=0).values - counts.min(dim=0).values).double().mean())


def test_halton_spreads_tokens_evenly() -> None:
    spread, scattered = (priorities(kind, GRID, streams(50), torch.device("cpu")) for kind in KINDS)
    assert spread is not None
    for grid in spread.argsort(dim=1):
        assert sorted(grid.tolist()) == list(range(64)), "every token once"
    assert not torch.equal(spread[0], spread[1]), "each image has its own shift"
    assert unevenness(spread) < 0.6 * unevenness(scattered)


def test_halton_follows_its_sequence() -> None:
    """Up to the shift of the image, on a torus, the first tokens are those of the sequence in bases 2 and 3."""
    priority = priorities("halton", GRID, streams(1), torch.device("cpu"))
    assert priority is not None
    order = priority[0].argsort().tolist()
    points = []
    for index in range(1, 2000):
        point = (int(halton(index, 2) * 8), int(halton(index, 3) * 8))
        if point not in points:
            points.append(point)
    shifts = {((order[k] // 8 - points[k][0]) % 8, (order[k] % 8 - points[k][1]) % 8) for k in range(64)}
    assert len(shifts) == 1


@pytest.mark.parametrize("grid", [(12,), (3, 4, 5)])
def test_halton_has_a_base_for_each_dimension(grid: tuple[int, ...]) -> None:
    """Up to the shift of each sequence or clip, tokens come as cells of the grid are met by plain loops."""
    cells: list[tuple[int, ...]] = []
    for index in range(1, 5000):
        cell = tuple(int(halton(index, base) * side) for base, side in zip((2, 3, 5), grid, strict=False))
        if cell not in cells:
            cells.append(cell)
    assert len(cells) == math.prod(grid)
    expected = torch.tensor(cells)
    priority = priorities("halton", grid, streams(3), torch.device("cpu"))
    assert priority is not None
    for row in priority:
        places = torch.stack(torch.unravel_index(row.argsort(), grid), dim=1)
        shift = places[0] - expected[0]
        assert torch.equal(places, (expected + shift) % torch.tensor(grid))


@pytest.mark.parametrize("grid", [GRID, (64,), (4, 4, 4)])
def test_random_order_is_random_and_confidence_has_no_priority(grid: tuple[int, ...]) -> None:
    priority = priorities("random", grid, streams(2), torch.device("cpu"))
    assert priority is not None
    assert priority.shape == (2, 64)
    assert not torch.equal(priority[0].argsort(), priority[1].argsort())
    assert priorities("confidence", GRID, streams(2), torch.device("cpu")) is None


def test_decoding_takes_tokens_in_the_given_order() -> None:
    priority = torch.tensor([[3.0, 0.0, 2.0, 1.0]])
    known: list[list[int]] = []

    def logits(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        known.append((tokens[0] != UNKNOWN).nonzero()[:, 0].tolist())
        return torch.zeros(1, places.shape[1], 3)

    settings = SamplingConfig(steps=4, schedule="linear", choice_temperature=99.0)
    decode(torch.full((1, 4), UNKNOWN), logits, generators=streams(1), settings=settings, priority=priority)
    assert known == [[], [1], [1, 3], [1, 2, 3]]


def stripes(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
    """Position p wants code p % 2, and very much so."""
    wanted = torch.nn.functional.one_hot(places % 2, 2).float()
    return 20 * wanted


def test_the_critic_finds_and_mends_what_does_not_fit() -> None:
    tokens = (torch.arange(10) % 2).repeat(2, 1)
    tokens[0, 3], tokens[1, 6] = 0, 1
    new = torch.ones(2, 10, dtype=torch.bool)
    likelihood = own_likelihood(tokens, new, stripes, rng.UniformRows(streams(2), 10, torch.device("cpu")))
    assert likelihood.argmin(dim=1).tolist() == [3, 6]
    settings = SamplingConfig(revisions=1, revise_share=0.1)
    mended = revise(tokens, new, stripes, generators=streams(2), settings=settings)
    assert torch.equal(mended, (torch.arange(10) % 2).repeat(2, 1))


@pytest.mark.parametrize("by", ["critic", "random"])
def test_revisions_leave_known_tokens_alone(by: str) -> None:
    tokens = torch.ones(3, 10, dtype=torch.int64)
    new = torch.zeros(3, 10, dtype=torch.bool)
    new[0, 4:], new[1, :2] = True, True
    settings = SamplingConfig(revisions=3, revise_share=1.0, revise_by=by)  # type: ignore[arg-type]
    revised = revise(tokens, new, stripes, generators=streams(3), settings=settings)
    assert (revised[~new] == 1).all()
    assert torch.equal(revised[new], (torch.arange(10) % 2).expand(3, -1)[new])
    likelihood = own_likelihood(tokens, new, stripes, rng.UniformRows(streams(3), 10, torch.device("cpu")))
    assert torch.equal(torch.isinf(likelihood), ~new)


def test_guidance_moves_away_from_the_scores_without_class() -> None:
    calls: list[str] = []

    def alone(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        calls.append("alone")
        return torch.tensor([[2.0, 1.0]])

    def twice(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        calls.append("twice")
        assert tokens.shape == places.shape == (2, 1)
        return torch.tensor([[2.0, 1.0], [1.0, 1.0]])

    settings = SamplingConfig(steps=2, guidance=3.0)
    nothing = torch.zeros(1, 1, dtype=torch.int64)
    scores = guided(twice, alone, settings)
    assert scores(nothing, nothing, 1.0).tolist() == [[5.0, 1.0]]
    assert scores(nothing, nothing, 0.5).tolist() == [[3.5, 1.0]]
    assert calls == ["twice", "twice"], "both in one pass"
    calls.clear()
    interval = SamplingConfig(guidance=3.0, guidance_schedule="interval", guidance_interval=(0.9, 1.0))
    assert guided(twice, alone, interval)(nothing, nothing, 0.5).tolist() == [[2.0, 1.0]]
    assert calls == ["alone"], "a step without guidance scores the batch once"
    assert guided(twice, None, interval)(nothing, nothing, 0.5).tolist() == [[2.0, 1.0]]


def test_classes_by_name_number_and_none() -> None:
    names = ("cat", "dog", "7")
    assert class_numbers("dog", 2, 3, names).tolist() == [1, 1]
    assert class_numbers([0, "cat", "-1"], 3, 3, names).tolist() == [0, 0, -1]
    assert class_numbers("7", 1, 3, names).tolist() == [2], "a name before a number"
    for given in (
        torch.tensor([2, 1]),
        np.array([2, 1]),
        np.array(["7", "dog"]),
        [np.str_("7"), 1],
    ):
        assert class_numbers(given, 2, 3, names).tolist() == [2, 1]
    assert class_numbers(np.str_("dog"), 1, 3, names).tolist() == [1]
    wrong: list[tuple[Any, str]] = [
        ("bird", "classes are cat, dog, 7"),
        (3, "classes are 0 to 2"),
        ([0, 1], "give one class"),
        (torch.tensor([0.5, 1, 1]), r"no class 0\.5"),
        (np.array([np.nan, 1, 1]), "no class nan"),
    ]
    for given, message in wrong:
        with pytest.raises(ValueError, match=message):
            class_numbers(given, 3, 3, names)
    with pytest.raises(ValueError, match="without classes"):
        class_numbers(0, 1, 0, ())


def test_drawn_classes_follow_their_shares_and_their_number() -> None:
    shares = [0.5, 0.0, 0.3, 0.2]
    drawn = drawn_classes(shares, 0, range(4000))
    frequency = torch.bincount(drawn, minlength=4) / 4000
    torch.testing.assert_close(frequency.tolist(), shares, atol=0.03, rtol=0)
    assert torch.equal(drawn[100:110], drawn_classes(shares, 0, range(100, 110)))
    assert math.isclose(float(frequency[1]), 0)
