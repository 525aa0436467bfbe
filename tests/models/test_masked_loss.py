"""The two ways of the loss, of masked positions alone and of one shape, have one value and one gradient."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mage import rng
from mage.masking import Mask, mask_from_noise
from mage.models import MAGEConfig, MAGETransformer
from mage.models.masked_loss import SHAPES, masked_loss, scores_every_position
from mage.vocabulary import Vocabulary

COUNT, LENGTH, WIDTH, CODES = 3, 20, 8, 30
RATIOS = (0.05, 0.5, 0.63, 0.99, 1.0)


def drawn(ratio: float | Tensor) -> tuple[Tensor, Tensor, Tensor, Mask]:
    """Decoder outputs, weights of a head, targets, and a mask."""
    random = rng.generator(0, "loss")
    decoded, head = torch.randn(COUNT, LENGTH, WIDTH, generator=random), torch.randn(CODES, WIDTH, generator=random)
    targets = torch.randint(CODES, (COUNT, LENGTH), generator=random)
    return decoded, head, targets, mask_from_noise(torch.rand(COUNT, LENGTH, generator=random), ratio)


def value_and_gradients(decoded: Tensor, head: Tensor, targets: Tensor, mask: Mask) -> list[Tensor]:
    inputs = [decoded.clone().requires_grad_(), head.clone().requires_grad_()]
    loss = masked_loss(lambda rows: rows @ inputs[1].T, inputs[0], targets, mask, smoothing=0.1)
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("ratio", [*RATIOS, torch.tensor([0.5, 0.7, 1.0])], ids=str)
def test_scoring_every_position_changes_neither_value_nor_gradients(
    ratio: float | Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = drawn(ratio)
    alone = value_and_gradients(*parts)
    monkeypatch.setattr("mage.models.masked_loss.scores_every_position", lambda device: True)
    everywhere = value_and_gradients(*parts)
    decoded, head, targets, mask = parts
    chosen = (decoded @ head.T)[mask.masked]
    formula = functional.cross_entropy(chosen, targets[mask.masked], label_smoothing=0.1)
    assert alone[0].item() == pytest.approx(formula.item(), rel=1e-6)
    torch.testing.assert_close(everywhere, alone, rtol=1e-5, atol=1e-7)
    assert not everywhere[1][~mask.masked].any(), "an unmasked position teaches nothing"


@pytest.mark.parametrize("ratio", RATIOS)
def test_on_a_gpu_every_step_scores_the_same_number_of_positions(ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, which has shapes alone: counting there fails, and would wait for a GPU."""
    sizes = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    network = MAGETransformer(sizes, Vocabulary.fresh(CODES), (4, 5)).to("meta")
    scored: list[tuple[int, ...]] = []
    network.head.register_forward_pre_hook(lambda module, inputs: scored.append(tuple(inputs[0].shape)))
    ids = torch.zeros(COUNT, LENGTH, dtype=torch.int64, device="meta")
    mask = drawn(ratio)[3].to(torch.device("meta"))
    network.loss(network(ids, mask), ids, mask).backward()
    assert scored == [(COUNT * LENGTH, 16)]


def test_uncompiled_on_a_cpu_positions_are_chosen() -> None:
    assert not scores_every_position(torch.device("cpu"))
    assert scores_every_position(torch.device("meta"))


def test_few_numbers_of_rows_are_scored_on_a_cpu() -> None:
    """For each, oneDNN keeps programs: a training of some hundred steps held gigabytes of them."""
    decoded, head, targets, _ = drawn(0.5)
    scored = set()

    def score(rows: Tensor) -> Tensor:
        scored.add(len(rows))
        return rows @ head.T

    for masked in range(1, COUNT * LENGTH + 1):
        flat = torch.randperm(COUNT * LENGTH, generator=rng.generator(0, "places", masked)) < masked
        mask = Mask.nothing_dropped(flat.view(COUNT, LENGTH))
        loss = masked_loss(score, decoded, targets, mask, smoothing=0.0)
        expected = functional.cross_entropy(decoded[mask.masked] @ head.T, targets[mask.masked])
        torch.testing.assert_close(loss, expected)
    assert len(scored) <= SHAPES
    assert max(scored) == COUNT * LENGTH
