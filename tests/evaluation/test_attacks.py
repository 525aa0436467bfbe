"""Attacks: within the budget, PGD at least as strong as FGSM, known answers met, through a tokenizer too."""

import pytest
import torch
from torch import Tensor, nn

from mage import building, rng
from mage.evaluation.attacks import AttackConfig, Norm, attack_accuracy, direction, fgsm, perturb, project
from mage.evaluation.differentiable import differentiable_scorer, latent_of, token_shares
from mage.evaluation.features import Features
from mage.evaluation.linear_head import LinearHead, fit_head
from mage.models import MAGEConfig, PatchEncoder, PatchEncoderConfig
from mage.pipeline import Mage
from mage.tokenizers import QuantizerConfig, VQGANConfig

NORMS: tuple[Norm, ...] = ("linf", "l2")
SIZES = MAGEConfig(width=32, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
QUANTIZERS = {
    "vq": QuantizerConfig("vq", 32),
    "ema": QuantizerConfig("ema", 32),
    "normalized": QuantizerConfig("normalized", 32),
    "simvq": QuantizerConfig("simvq", 32),
    "fsq": QuantizerConfig("fsq", 32, levels=(4, 8)),
    "lfq": QuantizerConfig("lfq", 32),
}


def model(kind: str = "ema") -> Mage:
    width = {"fsq": 2, "lfq": 5}.get(kind, 8)
    config = VQGANConfig((8, 8), 3, 16, (1,), code_width=width, patch_size=2, quantizer=QUANTIZERS[kind])
    made = building.build(SIZES, tokenizer=config, precision="float32")
    with torch.no_grad():  # random encoders put all images onto few words: spread them out
        probe = made.tokenizer.latent(torch.rand(16, 3, 8, 8, generator=rng.generator(0)))
        made.tokenizer.encoder.out.weight.mul_(0.5 / probe.std())
    return made


def linear(images: Tensor) -> Tensor:
    """Class 1 where the first channel's mean is above 1/2: its gradient is known."""
    lead = images[:, 0].mean(dim=(1, 2)) - 0.5
    return torch.stack([-lead, lead], dim=1)


def change_norm(change: Tensor, norm: Norm) -> Tensor:
    return torch.linalg.vector_norm(change, float("inf") if norm == "linf" else 2, dim=(1, 2, 3))


def starts(count: int) -> list[torch.Generator]:
    return [rng.generator(1, number) for number in range(count)]


@pytest.mark.parametrize("norm", NORMS)
def test_changes_stay_within_the_budget_and_the_image(norm: Norm) -> None:
    images = torch.rand(6, 3, 8, 8, generator=rng.generator(0))
    labels = torch.arange(6) % 2
    for budget in (0.02, 1.5):
        for config in (fgsm(norm, budget), AttackConfig(norm, budget, steps=7)):
            changed = perturb(lambda x: -linear(x)[torch.arange(6), labels], images, config, starts(6))
            assert float(change_norm(changed - images, norm).max()) <= budget * (1 + 1e-5)
            assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
            assert not torch.equal(changed, images)


def test_known_answers_on_a_linear_classifier() -> None:
    """linf moves the mean of the channel by the budget; l2 by budget / sqrt(pixels)."""
    lead = torch.tensor([0.01, 0.03, 0.05, 0.2])
    images = torch.full((4, 3, 8, 8), 0.5)
    images[:, 0] += lead[:, None, None]
    labels = torch.ones(4, dtype=torch.int64)
    for config, expected in (
        (fgsm("linf", 0.04), 0.5),
        (fgsm("l2", 0.04 * 8), 0.5),
        (AttackConfig("linf", 0.04, steps=20), 0.5),
        (AttackConfig("l2", 0.04 * 8, steps=20), 0.5),
        (fgsm("linf", 0.001), 1.0),
    ):
        result = attack_accuracy(linear, images, labels, config)
        assert (result.clean, result.attacked) == (1.0, expected)


def test_pgd_is_at_least_as_strong_as_fgsm() -> None:
    """On a curved classifier, a small network, at several budgets."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(192, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5)
        )
        for layer in network[1::2]:
            layer.weight.data.mul_(3)
    images = torch.rand(200, 3, 8, 8, generator=rng.generator(0))
    labels = network(images).argmax(dim=1)
    stronger = 0
    for norm, budgets in (("linf", (0.005, 0.01, 0.02)), ("l2", (0.05, 0.1, 0.2))):
        for budget in budgets:
            one = attack_accuracy(network, images, labels, fgsm(norm, budget))
            many = attack_accuracy(network, images, labels, AttackConfig(norm, budget, steps=20))
            assert many.attacked <= one.attacked
            stronger += many.attacked < one.attacked
    assert stronger >= 2


@pytest.mark.parametrize("norm", NORMS)
def test_an_attack_does_not_depend_on_the_batch_size(norm: Norm) -> None:
    """One step that does not reach the edge of the budget: the random start decides about images near the border."""
    images = 0.4 + 0.2 * torch.rand(60, 3, 8, 8, generator=rng.generator(0))
    labels = linear(images).argmax(dim=1)
    lead = linear(images).amax(dim=1)
    budget = float(lead.median()) * (2 if norm == "linf" else 16)
    config = AttackConfig(norm, budget, steps=1, step_share=0.5)
    found = [attack_accuracy(linear, images, labels, config, batch_size=size) for size in (1, 7, 60)]
    assert 0 < found[0].attacked < 1
    for other in found[1:]:
        assert torch.equal(other.survivors, found[0].survivors)
    again = attack_accuracy(linear, images, labels, config, seed=1)
    assert not torch.equal(again.survivors, found[0].survivors), "another seed starts elsewhere"


@pytest.mark.parametrize("norm", NORMS)
def test_projection_and_direction(norm: Norm) -> None:
    change = torch.randn(5, 1, 4, 4, generator=rng.generator(0))
    config = AttackConfig(norm, 0.5)
    inside = project(change, config)
    assert float(change_norm(inside, norm).max()) <= 0.5 + 1e-6
    torch.testing.assert_close(project(inside, config), inside)
    torch.testing.assert_close(change_norm(direction(change, norm), norm), torch.ones(5))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_straight_through_is_the_models_own_answer_with_a_gradient(kind: str) -> None:
    made = model(kind)
    images = torch.rand(3, 3, 8, 8, generator=rng.generator(0))
    shares = token_shares(made.tokenizer, images)
    ids = made.encode(images).flatten(1)
    assert len(ids.unique()) > 3
    assert torch.equal(shares.argmax(dim=2), ids)
    torch.testing.assert_close(shares.sum(dim=2), torch.ones(3, 16))
    head = LinearHead(torch.zeros(32), torch.ones(32), torch.randn(4, 32, generator=rng.generator(1)), torch.zeros(4))
    images.requires_grad_(True)
    scores = differentiable_scorer(made, head)(images)
    torch.testing.assert_close(scores.detach(), head(made.features(images.detach())), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(scores[:, 0].sum(), images)
    assert float(gradient.abs().amax(dim=(1, 2, 3)).min()) > 0


def test_affinity_names_the_words_that_ids_do() -> None:
    for kind in QUANTIZERS:
        quantizer = model(kind).tokenizer.quantizer
        vectors = torch.randn(50, quantizer.words().shape[1], generator=rng.generator(0))
        assert torch.equal(quantizer.affinity(vectors).argmax(dim=1), quantizer.nearest(vectors)), kind


def test_an_attack_on_the_latent_moves_tokens_without_labels() -> None:
    made = model()
    images = torch.rand(8, 3, 8, 8, generator=rng.generator(0))
    features = made.features(images)
    head = fit_head(Features(features, torch.arange(8) % 4), solver="ridge").head
    score = differentiable_scorer(made, head)
    labels = score(images).argmax(dim=1)
    config = AttackConfig("linf", 0.1, steps=10)
    latent = latent_of(made)
    assert latent is not None
    moved = attack_accuracy(score, images, labels, config, latent=latent)
    noise = (images + 0.1 * torch.randn(images.shape, generator=rng.generator(0)).sign()).clamp(0, 1)
    with torch.no_grad():
        changed = perturb(
            lambda x: (latent(x) - latent(images)).flatten(1).square().sum(dim=1), images, config, starts(8)
        )
        shift = [float((latent(other) - latent(images)).square().mean()) for other in (changed, noise)]
    assert shift[0] > 1.5 * shift[1]
    assert moved.clean == 1.0
    assert moved.attacked < 1.0


def test_a_model_of_pixels_needs_no_tokenizer() -> None:
    encoder = PatchEncoder(PatchEncoderConfig((8, 8), 3, 4, 32, 2, 2))
    made = Mage(None, encoder, precision="float32")
    head = LinearHead(torch.zeros(32), torch.ones(32), torch.randn(4, 32, generator=rng.generator(1)), torch.zeros(4))
    images = torch.rand(3, 3, 8, 8, generator=rng.generator(0))
    torch.testing.assert_close(differentiable_scorer(made, head)(images), head(made.features(images)))
    assert latent_of(made) is None


def test_what_cannot_be_attacked_is_an_error() -> None:
    made = model()
    with pytest.raises(ValueError, match="no classifier"):
        differentiable_scorer(made)
    with pytest.raises(ValueError, match="positive budget"):
        AttackConfig(budget=0)
