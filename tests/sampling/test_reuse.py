"""Passes that compute only what changed: exact where nothing is out of date, and as written down where something is."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import mage
from mage import rng
from mage.masking import Mask
from mage.models import MAGEConfig, MAGETransformer
from mage.sampling.decode import UNKNOWN, decode
from mage.sampling.generator import logits_function
from mage.sampling.reuse import ReusedPasses
from mage.sampling.settings import SamplingConfig
from mage.vocabulary import Vocabulary
from tests.reference.reuse import LoopedPasses

GRID, LENGTH, CODES = (4, 4), 16, 9
KINDS: dict[str, dict[str, Any]] = {
    "mage": {},
    "maskgit": {"decoder_depth": 0},
    "class word": {"num_classes": 3},
    "class vector": {"num_classes": 3, "class_input": "decoder"},
}


def build(kind: str) -> MAGETransformer:
    config = MAGEConfig(**{"width": 16, "depth": 2, "heads": 2, "decoder_width": 12, "decoder_depth": 2,
                           "decoder_heads": 3} | KINDS[kind])  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = Vocabulary.fresh(CODES, config.num_classes if config.class_input == "encoder" else 0)
        network = MAGETransformer(config, words, GRID).double().eval().requires_grad_(False)
        for parameter in network.parameters():  # far from the small start, so that positions matter to one another
            parameter.copy_(torch.randn(parameter.shape, generator=rng.generator(1, str(parameter.shape))) * 0.4)
    return network


@pytest.fixture(params=KINDS)
def network(request: pytest.FixtureRequest) -> MAGETransformer:
    return build(request.param)


def classes_of(network: MAGETransformer) -> Tensor | None:
    return torch.tensor([0, 2, -1]) if network.config.num_classes else None


def grids() -> Iterator[tuple[Tensor, Tensor]]:
    """Three grids becoming known at different paces, one of them losing a token again; and the places asked for."""
    codes = torch.randint(CODES, (3, LENGTH), generator=rng.generator(0, "codes"))
    for known in ((0, 4, 1), (2, 4, 2), (5, 6, 1), (9, 8, 3)):
        tokens = torch.where(torch.arange(LENGTH) < torch.tensor(known)[:, None], codes, UNKNOWN)
        places = torch.tensor(known)[:, None] + torch.arange(3)
        places[1, 2] = 0  # known: a grid with fewer unknown tokens than another asks for something
        yield tokens, places


def whole(network: MAGETransformer, tokens: Tensor, places: Tensor) -> Tensor:
    output = network(tokens, Mask.nothing_dropped(tokens == UNKNOWN), classes_of(network))
    scores: Tensor = output.code_logits_at(places)
    return scores


def test_complete_passes_are_the_networks(network: MAGETransformer) -> None:
    passes = ReusedPasses(network, lambda progress: True, classes_of(network))
    for tokens, places in grids():
        torch.testing.assert_close(passes(tokens, places, 0.5), whole(network, tokens, places))


def test_nothing_changes_where_nothing_changed(network: MAGETransformer) -> None:
    passes = ReusedPasses(network, lambda progress: False, classes_of(network))
    for tokens, places in grids():
        passes = ReusedPasses(network, lambda progress: False, classes_of(network))
        passes(tokens, places[:, :1], 0.5)
        asked = tokens.gather(1, places) == UNKNOWN
        expected = whole(network, tokens, places)
        for _ in range(3):
            torch.testing.assert_close(passes(tokens, places, 0.5)[asked], expected[asked])


def test_without_attention_nothing_is_ever_out_of_date(network: MAGETransformer) -> None:
    for name, parameter in network.named_parameters():
        if ".attn.proj." in name:
            parameter.zero_()
    passes = ReusedPasses(network, lambda progress: False, classes_of(network))
    for tokens, places in grids():
        asked = tokens.gather(1, places) == UNKNOWN
        torch.testing.assert_close(passes(tokens, places, 0.5)[asked], whole(network, tokens, places)[asked])


@pytest.mark.parametrize("encoder_keep", [1.0, 0.6, 0.2])
def test_what_is_out_of_date_agrees_with_plain_loops(network: MAGETransformer, encoder_keep: float) -> None:
    if encoder_keep < 1 and not network.config.decoder_depth:
        with pytest.raises(ValueError, match="without a decoder"):
            ReusedPasses(network, lambda number: True, encoder_keep=encoder_keep)
        return
    classes = classes_of(network)
    noise = torch.rand(3, LENGTH, generator=rng.generator(0, "noise"))
    passes = ReusedPasses(
        network, lambda number: number % 3 == 0, classes, encoder_keep=encoder_keep, noise=lambda: noise
    )
    wanted = [None if classes is None else int(label) for label in (classes if classes is not None else range(3))]
    slow = [LoopedPasses(network, 3, wanted[row], encoder_keep, noise[row]) for row in range(3)]
    differed = False
    for number, (tokens, places) in enumerate(grids()):
        found = passes(tokens, places, number)
        for row, one in enumerate(slow):
            asked = [int(place) for place in places[row] if tokens[row, place] == UNKNOWN]
            expected = one(tokens[row].tolist(), asked)
            torch.testing.assert_close(found[row, : len(asked)], expected)
            exact = whole(network, tokens, places)[row, : len(asked)]
            differed |= not torch.allclose(expected, exact, atol=1e-4)
    assert differed, "something was out of date"


@pytest.mark.parametrize("encoder_keep", [0.6, 0.2])
def test_complete_passes_of_a_part_are_the_networks(network: MAGETransformer, encoder_keep: float) -> None:
    if not network.config.decoder_depth:
        pytest.skip("a network without a decoder sees every position")
    noise = torch.rand(3, LENGTH, generator=rng.generator(0, "noise"))
    passes = ReusedPasses(
        network, lambda progress: True, classes_of(network), encoder_keep=encoder_keep, noise=lambda: noise
    )
    part = logits_function(network, encoder_keep, lambda: noise, classes_of(network))
    for tokens, places in grids():
        torch.testing.assert_close(passes(tokens, places, 0.5), part(tokens, places, 0.5))


@pytest.mark.parametrize("order", ["confidence", "halton", "random"])
def test_off_is_the_papers_sampler_and_on_fills_all(order: str) -> None:
    model = mage.Mage(None, build("mage").float(), precision="float32", device="cpu")
    plain = model.generate_tokens(3, steps=6, order=order, seed=2)
    assert torch.equal(model.generate_tokens(3, steps=6, order=order, seed=2, reuse=1), plain)
    reused = model.generate_tokens(3, steps=6, order=order, seed=2, reuse=6)
    assert reused.min() >= 0
    start = plain.clone()
    start[:, :2] = UNKNOWN
    kept = model.generate_tokens(3, start=start, steps=6, order=order, reuse=4, revisions=1)
    assert torch.equal(kept[:, 2:], plain[:, 2:])


def test_reuse_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SamplingConfig(reuse=0)


def asked_in_each_pass(sampling: dict[str, Any]) -> list[int]:
    """How many different positions of a grid each pass is asked to score."""
    counts: list[int] = []

    def logits(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        assert (tokens.gather(1, places) == UNKNOWN).all()
        counts.append(len(places[0].unique()))
        scores = torch.linspace(0, 3, LENGTH)[places]  # later positions are surer
        return torch.stack([scores, torch.zeros_like(scores)], dim=-1)

    start = torch.full((2, LENGTH), UNKNOWN)
    generators = [rng.generator(0, row) for row in range(2)]
    settings = SamplingConfig(steps=8, choice_temperature=0, token_temperature=0, schedule="linear", **sampling)
    filled = decode(start, logits, generators=generators, settings=settings)
    assert (filled == 0).all()
    return counts


def test_by_confidence_passes_in_between_score_the_likely_positions_alone() -> None:
    assert asked_in_each_pass({}) == [16, 14, 12, 10, 8, 6, 4, 2], "two become known in each pass"
    assert asked_in_each_pass({"reuse": 4}) == [16, 4, 4, 4, 8, 4, 4, 2], "two candidates for each of them"


def test_scores_that_do_not_change_give_the_tokens_of_complete_passes() -> None:
    """Positions that would be taken are known before a pass: their codes are drawn with the numbers of the step."""
    scores = torch.randn(2, LENGTH, 5, generator=rng.generator(0, "scores"))

    def logits(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        return scores.gather(1, places[..., None].expand(-1, -1, 5))

    def filled(reuse: int) -> Tensor:
        start = torch.full((2, LENGTH), UNKNOWN)
        start[0, :3] = 1
        generators = [rng.generator(0, row) for row in range(2)]
        settings = SamplingConfig(steps=6, choice_temperature=2.0, reuse=reuse)
        return decode(start, logits, generators=generators, settings=settings)

    assert torch.equal(filled(6), filled(1))


def test_the_likely_positions_are_those_that_were_surest_when_they_were_scored() -> None:
    known: list[Tensor] = []
    start = torch.full((1, LENGTH), UNKNOWN)

    def logits(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        scores = torch.linspace(0, 3, LENGTH)[places]
        return torch.stack([scores, torch.zeros_like(scores)], dim=-1)

    decode(
        start, logits, generators=[rng.generator(0)], on_step=lambda step, tokens: known.append(tokens[0] != UNKNOWN),
        settings=SamplingConfig(steps=8, choice_temperature=0, token_temperature=0, schedule="linear", reuse=8),
    )  # fmt: skip
    for step, positions in enumerate(known):
        assert positions.nonzero()[:, 0].tolist() == list(range(LENGTH - 2 * step, LENGTH))


@pytest.mark.parametrize("order", ["confidence", "random"])
def test_a_grid_asks_for_the_same_positions_whatever_longer_grids_are_in_its_batch(order: str) -> None:
    """What a pass computes is kept for the next ones: a short row must compute nothing more."""
    start = torch.full((2, LENGTH), UNKNOWN)
    start[1, :9] = 0
    priority = torch.rand(2, LENGTH, generator=rng.generator(0, "priority"))

    def asked(rows: slice) -> list[set[int]]:
        positions: list[set[int]] = []

        def logits(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
            positions.append(set(places[-1].tolist()))
            scores = torch.linspace(0, 3, LENGTH)[places]
            return torch.stack([scores, torch.zeros_like(scores)], dim=-1)

        generators = [rng.generator(0, row) for row in range(2)][rows]
        settings = SamplingConfig(steps=4, reuse=4, choice_temperature=2.0)
        decode(
            start[rows], logits, generators=generators, settings=settings,
            priority=None if order == "confidence" else priority[rows],
        )  # fmt: skip
        return positions

    assert asked(slice(0, 2)) == asked(slice(1, 2))
