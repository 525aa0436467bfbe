"""From a network to filled grids."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import mage
from mage import rng
from mage.masking import Mask
from mage.models import MAGEConfig, MAGETransformer
from mage.sampling.decode import UNKNOWN, decode
from mage.sampling.generator import ScoreAll, fill, logits_function, scores_everywhere
from mage.sampling.settings import SamplingConfig
from mage.vocabulary import Vocabulary

GRID, CODES = (4, 4), 9


@pytest.fixture(scope="module")
def network() -> MAGETransformer:
    torch.manual_seed(0)
    config = MAGEConfig(16, 2, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return MAGETransformer(config, Vocabulary.fresh(CODES), GRID).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def with_classes() -> MAGETransformer:
    torch.manual_seed(0)
    config = MAGEConfig(
        16, 2, 2, decoder_width=16, decoder_depth=1, decoder_heads=2, num_classes=3, class_input="decoder"
    )
    network = MAGETransformer(config, Vocabulary.fresh(CODES), GRID).eval().requires_grad_(False)
    torch.nn.init.normal_(network.class_embedding.weight)
    return network


def partly_known() -> Tensor:
    grids = torch.randint(CODES, (4, 16), generator=rng.generator(0, "grids"))
    for row, count in enumerate((16, 12, 12, 3)):
        grids[row, :count] = UNKNOWN
    return grids


def completed(network: MAGETransformer, grids: Tensor, *, batch_size: int, first: int = 0, **sampling: Any) -> Tensor:
    batches = fill(
        network, grids, indices=range(first, first + len(grids)), seed=0, stream="sample",
        settings=SamplingConfig(steps=5, choice_temperature=4.0, **sampling), batch_size=batch_size,
    )  # fmt: skip
    return torch.cat(list(batches))


@pytest.mark.parametrize("order", ["confidence", "random"])
def test_sampling_sees_tokens_in_a_row_whatever_their_grid(network: MAGETransformer, order: Literal["random"]) -> None:
    """Rows, grids and clips with equal weights are filled with equal tokens."""
    model = mage.Mage(None, network, precision="float32", device="cpu")
    start = partly_known()
    expected = model.generate_tokens(4, start=start, steps=5, order=order)
    assert expected.shape == (4, *GRID)
    for grid in ((16,), (2, 2, 4)):
        other = MAGETransformer(network.config, network.vocabulary, grid).eval().requires_grad_(False)
        other.load_state_dict(network.state_dict())
        model = mage.Mage(None, other, precision="float32", device="cpu")
        filled = model.generate_tokens(4, start=start.view(4, *grid), steps=5, order=order)
        assert torch.equal(filled, expected.view(4, *grid))
        again = model.mask_tokens(filled, 0.5, seed=0)
        assert again.shape == filled.shape
        assert ((again == UNKNOWN).flatten(1).sum(dim=1) == 8).all()
        assert model.generate_tokens(2, order="halton").shape == (2, *grid)


@pytest.mark.parametrize(
    "sampling",
    [
        {}, {"encoder_keep": 0.5}, {"encoder_keep": 0.3}, {"order": "halton"}, {"reuse": 3},
        {"reuse": 3, "encoder_keep": 0.3},
        {"order": "halton", "reuse": 3}, {"order": "random", "reuse": 10, "revisions": 2},
    ],
    ids=str,
)  # fmt: skip
def test_a_grid_does_not_depend_on_its_batch(network: MAGETransformer, sampling: dict[str, Any]) -> None:
    grids = partly_known()
    together = completed(network, grids, batch_size=4, **sampling)
    alone = completed(network, grids, batch_size=1, **sampling)
    assert torch.equal(together, alone)
    assert (together >= 0).all()
    assert torch.equal(together[grids >= 0], grids[grids >= 0])


def test_the_encoder_sees_all_known_tokens_and_a_share_of_all(network: MAGETransformer) -> None:
    seen: list[Mask] = []
    hook = network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    try:
        logits = logits_function(network, 0.5, lambda: torch.rand(4, 16, generator=rng.generator(0)))
        logits(partly_known(), torch.arange(16).expand(4, -1), 1.0)
    finally:
        hook.remove()
    kept = {mask.num_kept: len(mask.masked) for mask in seen}
    assert kept == {8: 3, 13: 1}, "half of 16; the grid with 13 known tokens keeps all of them and no unknown one"
    assert all((mask.masked | ~mask.dropped).all() for mask in seen), "a known token is never dropped"


def test_dropping_nothing_is_the_papers_pass(network: MAGETransformer) -> None:
    grids = partly_known()
    places = torch.arange(16).expand(4, -1)
    scores = logits_function(network)(grids, places, 1.0)
    output = network(grids, Mask.nothing_dropped(grids == UNKNOWN))
    torch.testing.assert_close(scores, output.code_logits)
    few = torch.tensor([[0, 5], [3, 3], [15, 1], [2, 7]])
    torch.testing.assert_close(logits_function(network)(grids, few, 1.0)[2], output.code_logits[2, [15, 1]])


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="encoder_keep"):
        SamplingConfig(encoder_keep=share)


def guided_grids(
    network: MAGETransformer, batch_size: int = 4, everywhere: ScoreAll | None = None, **sampling: Any
) -> Tensor:
    grids = fill(
        network, partly_known(), indices=range(4), seed=0, stream="sample", batch_size=batch_size,
        settings=SamplingConfig(steps=5, guidance=3.0, **sampling), classes=torch.tensor([0, 1, -1, 2]),
        everywhere=everywhere,
    )  # fmt: skip
    return torch.cat(list(grids))


def test_both_copies_of_guidance_see_the_same_tokens_and_other_classes(with_classes: MAGETransformer) -> None:
    calls: list[tuple[Any, ...]] = []
    hook = with_classes.register_forward_pre_hook(lambda module, inputs: calls.append(inputs))
    try:
        guided_grids(with_classes, encoder_keep=0.5)
    finally:
        hook.remove()
    dropped = 0
    for ids, mask, classes in calls:
        assert torch.equal(*ids.chunk(2))
        assert torch.equal(*mask.dropped.chunk(2))
        assert (classes.chunk(2)[1] == -1).all()
        dropped += int(mask.dropped.sum())
    assert dropped > 0
    assert {int(label) for call in calls for label in call[2].chunk(2)[0]} == {0, 1, -1, 2}


def test_guidance_in_one_pass_is_guidance_in_two(with_classes: MAGETransformer) -> None:
    classes = torch.tensor([0, 1, -1, 2])

    def two_passes(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        scores, without = (
            logits_function(with_classes, classes=each)(tokens, places, progress) for each in (classes, None)
        )
        return scores + 3.0 * progress * (scores - without)

    generators = [rng.generator(0, "sample", index) for index in range(4)]
    expected = decode(partly_known(), two_passes, generators=generators, settings=SamplingConfig(steps=5))
    assert torch.equal(guided_grids(with_classes), expected)


@pytest.mark.parametrize(
    "sampling", [{}, {"order": "halton"}, {"revisions": 2}, {"guidance_schedule": "interval"}], ids=str
)
def test_passes_that_score_all_positions_give_the_same_tokens(
    with_classes: MAGETransformer, sampling: dict[str, Any]
) -> None:
    shapes: set[tuple[int, ...]] = set()

    def everywhere(tokens: Tensor, classes: Tensor) -> Tensor:
        scores = scores_everywhere(with_classes, tokens, classes)
        shapes.add(tuple(scores.shape))
        return scores

    expected = guided_grids(with_classes, **sampling)
    assert torch.equal(guided_grids(with_classes, everywhere=everywhere, **sampling), expected)
    assert shapes <= {(4, 16, CODES), (8, 16, CODES)}, "one shape, and one for both copies of guidance"
    assert shapes


def test_partial_passes_do_not_score_all_positions(with_classes: MAGETransformer) -> None:
    for sampling in ({"reuse": 2}, {"encoder_keep": 0.5}):
        tokens = guided_grids(with_classes, everywhere=lambda tokens, classes: 1 / 0, **sampling)  # type: ignore[arg-type]
        assert torch.equal(tokens, guided_grids(with_classes, **sampling))  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", [{}, {"reuse": 2}, {"guidance_schedule": "interval", "reuse": 2}], ids=str)
def test_a_guided_grid_does_not_depend_on_its_batch(with_classes: MAGETransformer, sampling: dict[str, Any]) -> None:
    assert torch.equal(guided_grids(with_classes, 4, **sampling), guided_grids(with_classes, 1, **sampling))
