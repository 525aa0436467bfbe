"""Surprise: each token is scored once, by a network that did not see it, and as the definition says."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mage import rng
from mage.masking import Mask
from mage.models import MAGEConfig, MAGETransformer
from mage.models.mage import MAGEOutput
from mage.nn.grids import area
from mage.sampling.surprise import check_parts, divide, surprise, unsmoothed
from mage.vocabulary import Vocabulary
from tests.reference.surprise import looped_surprise

CODES = 9
KINDS: dict[str, dict[str, Any]] = {
    "mage": {},
    "maskgit": {"decoder_depth": 0},
    "class word": {"num_classes": 3},
    "class vector": {"num_classes": 3, "class_input": "decoder"},
}
GRIDS = ((7,), (4, 3), (5, 5), (2, 3, 4))


def build(kind: str, grid: tuple[int, ...] = (4, 3)) -> MAGETransformer:
    config = MAGEConfig(**{"width": 16, "depth": 2, "heads": 2, "decoder_width": 12, "decoder_depth": 2,
                           "decoder_heads": 3, "label_smoothing": 0.0} | KINDS[kind])  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = Vocabulary.fresh(CODES, config.num_classes if config.class_input == "encoder" else 0)
        network = MAGETransformer(config, words, grid).eval().requires_grad_(False)
        for parameter in network.parameters():  # far from the small start, so that tokens matter to one another
            parameter.copy_(torch.randn(parameter.shape, generator=rng.generator(1, str(parameter.shape))) * 0.4)
    return network


def codes(count: int, grid: tuple[int, ...] = (4, 3)) -> Tensor:
    return torch.randint(CODES, (count, area(grid)), generator=rng.generator(0, "codes"))


@pytest.mark.parametrize("kind", KINDS)
def test_surprise_is_that_of_the_definition(kind: str) -> None:
    network, grids = build(kind), codes(3)
    classes = torch.tensor([0, 2, -1]) if network.config.num_classes else None
    found = surprise(network, grids, parts=3, draws=2, seed=5, classes=classes).found
    divisions = [divide((4, 3), 3, seed=5, draw=draw).tolist() for draw in range(2)]
    for row, grid in enumerate(grids):
        number = None if classes is None else int(classes[row])
        expected = looped_surprise(network, grid.tolist(), divisions, number)
        torch.testing.assert_close(found[row], torch.tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("possible", [1, 3, CODES])
def test_what_is_expected_does_not_depend_on_label_smoothing(possible: int) -> None:
    """What a perfect network with smoothing predicts of tokens that are one of so many codes: no surprise on average,
    of simple tokens as of busy ones."""
    held = torch.zeros(CODES)
    held[:possible] = 1 / possible
    predicted = 0.9 * held + 0.1 / CODES
    torch.testing.assert_close(unsmoothed(predicted, 0.1), held)
    network = build("mage")
    network.config = replace(network.config, label_smoothing=0.1)
    with pytest.MonkeyPatch.context() as patch:
        logits = predicted.log().expand(1, 4, CODES)
        patch.setattr(MAGEOutput, "code_logits_at", lambda output, places: logits)
        expected = surprise(network, codes(1), parts=3, draws=1, seed=0).expected
    least = -float(predicted[0].log())
    torch.testing.assert_close(expected, torch.full_like(expected, least), msg="each possible code surprises as much")


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("kind", ["mage", "maskgit"])
def test_the_network_does_not_see_the_token_that_it_scores(kind: str, grid: tuple[int, ...]) -> None:
    """Else the probabilities of all codes that could stand in one place, each read with that code there, are not 1."""
    network, original = build(kind, grid), codes(1, grid)[0]
    for token in (0, area(grid) // 2, area(grid) - 1):
        variants = original.repeat(CODES, 1)
        variants[:, token] = torch.arange(CODES)
        found, expected = surprise(network, variants, parts=3, draws=1, seed=0)
        torch.testing.assert_close((-found[:, token]).exp().sum(), torch.tensor(1.0), atol=1e-5, rtol=0)
        mean = ((-found[:, token]).exp() * found[:, token]).sum()
        torch.testing.assert_close(expected[:, token], mean.expand(CODES), msg="what is expected is the mean")
        part_of = divide(grid, 3, seed=0, draw=0)
        together = (part_of == part_of[token]) & (torch.arange(area(grid)) != token)
        others = found[:, together]
        torch.testing.assert_close(others, others[:1].expand_as(others), msg="tokens of one part see each other")
        assert (found[:, part_of != part_of[token]].std(dim=0) > 0).all(), "the other parts do see it"


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("parts", [2, 4, 7])
def test_each_token_is_masked_and_scored_in_one_pass_of_a_draw(
    grid: tuple[int, ...], parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, scored, masked = build("mage", grid), [], []
    forward, score = MAGETransformer.forward, MAGEOutput.code_logits_at

    def noting_forward(self: MAGETransformer, ids: Tensor, mask: Mask, classes: Tensor | None = None) -> MAGEOutput:
        masked.append(mask.masked)
        return forward(self, ids, mask, classes)

    def noting_score(self: MAGEOutput, places: Tensor) -> Tensor:
        scored.append(places)
        return score(self, places)

    monkeypatch.setattr(MAGETransformer, "forward", noting_forward)
    monkeypatch.setattr(MAGEOutput, "code_logits_at", noting_score)
    surprise(network, codes(2, grid), parts=parts, draws=1, seed=3)
    assert len(masked) == parts
    assert (torch.stack(masked).sum(dim=0) == 1).all()
    assert torch.cat(scored, dim=1).sort(dim=1).values.tolist() == [list(range(area(grid)))] * 2
    sizes = [int(mask[0].sum()) for mask in masked]
    assert max(sizes) - min(sizes) <= 1


def test_parts_are_spread_evenly_over_the_grid() -> None:
    """Tokens of one part touch less often than by chance, a quarter of pairs; quarters of the grid get equal shares.

    By chance the squared deviation of a quarter's share from 16 tokens would be 9 on average.
    """
    deviations = []
    for draw in range(6):
        part_of = divide((16, 16), 4, seed=0, draw=draw).view(16, 16)
        touching = torch.cat([(part_of[1:] == part_of[:-1]).flatten(), (part_of[:, 1:] == part_of[:, :-1]).flatten()])
        assert touching.float().mean() < 0.2
        quarters = part_of.view(2, 8, 2, 8).transpose(1, 2).reshape(4, 64)
        counts = torch.stack([(quarters == part).sum(dim=1) for part in range(4)])
        deviations.append((counts.float() - 16).square().mean())
    assert torch.stack(deviations).mean() < 6


def test_draws_are_averaged_and_each_division_is_another() -> None:
    network, grids = build("mage"), codes(2)
    one, two = (surprise(network, grids, parts=3, draws=draws, seed=0).found for draws in (1, 2))
    assert not torch.equal(divide((4, 3), 3, seed=0, draw=0), divide((4, 3), 3, seed=0, draw=1))
    second = torch.tensor(
        [looped_surprise(network, grid.tolist(), [divide((4, 3), 3, seed=0, draw=1).tolist()], None) for grid in grids]
    )
    torch.testing.assert_close(two, (one + second) / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("parts", "draws"), [(1, 1), (0, 1), (13, 1), (2, 0)])
def test_impossible_divisions_are_refused(parts: int, draws: int) -> None:
    with pytest.raises(ValueError, match=r"between 2 and the 12 tokens|at least 1"):
        check_parts((4, 3), parts, draws)
