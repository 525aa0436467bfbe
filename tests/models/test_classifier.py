"""Classifiers on MAGE's encoder: two kinds of head, two kinds of pooling."""

import pytest
import torch
from torch import Tensor

from mage import rng
from mage.models import MAGEClassifier, MAGEConfig
from mage.models.classifier import HeadKind
from mage.models.pooling import Pool
from mage.vocabulary import Vocabulary
from tests.reference import models as reference

GRID = (2, 3)


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(9, (5, *GRID), generator=rng.generator(0, "ids"))


def classifier(pool: Pool = "mean", head_kind: HeadKind = "linear") -> MAGEClassifier:
    """With weights of visible size, as after training."""
    sizes = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    network = MAGEClassifier(sizes, Vocabulary.fresh(9), GRID, num_classes=4, pool=pool, head_kind=head_kind).eval()
    random = rng.generator(0, "weights")
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)
    return network.requires_grad_(False)


def test_mean_features_are_the_normed_mean_of_the_tokens_without_the_class(ids: Tensor) -> None:
    network = classifier("mean")
    assert network.feature_norm is not None
    assert network.encoder.norm is None, "released fine-tuned checkpoints have no such weights"
    means = network.encoder(ids.flatten(1))[:, 1:].mean(dim=1)
    normed = torch.tensor([reference.layer_norm(row, 1e-6) for row in means.tolist()])
    expected = normed * network.feature_norm.weight + network.feature_norm.bias
    torch.testing.assert_close(network.features(ids), expected)


def test_class_features_are_the_normed_class_token(ids: Tensor) -> None:
    network = classifier("class")
    assert network.feature_norm is None
    assert network.encoder.norm is not None
    first = network.encoder(ids.flatten(1))[:, 0]
    normed = torch.tensor([reference.layer_norm(row, 1e-6) for row in first.tolist()])
    torch.testing.assert_close(network.features(ids), normed * network.encoder.norm.weight + network.encoder.norm.bias)


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_a_linear_head_scores_the_features(ids: Tensor, pool: Pool) -> None:
    network = classifier(pool, "linear")
    assert network.head_norm is None
    scores = network(ids)
    assert scores.shape == (5, 4)
    assert torch.equal(network(ids.flatten(1)), scores), "rows of tokens will do"
    torch.testing.assert_close(scores, network.features(ids) @ network.head.weight.T + network.head.bias)


def test_a_probe_standardises_features_by_what_it_saw_in_training(ids: Tensor) -> None:
    network = classifier("mean", "batchnorm_linear")
    assert network.head_norm is not None
    assert [name for name, _ in network.head_norm.named_parameters()] == [], "it has no weights of its own"
    mean, variance = torch.randn(16, generator=rng.generator(0)), torch.rand(16, generator=rng.generator(1)) + 0.5
    network.head_norm.running_mean, network.head_norm.running_var = mean.clone(), variance.clone()
    standard = (network.features(ids) - mean) / (variance + 1e-6).sqrt()
    torch.testing.assert_close(network(ids), standard @ network.head.weight.T + network.head.bias)
    network.train()
    network.encoder.eval()
    features = network.features(ids)
    standard = (features - features.mean(dim=0)) / (features.var(dim=0, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(network(ids), standard @ network.head.weight.T + network.head.bias, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network.head_norm.running_mean, 0.9 * mean + 0.1 * features.mean(dim=0))


def test_a_fresh_head_is_undecided(ids: Tensor) -> None:
    sizes = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    network = MAGEClassifier(sizes, Vocabulary.fresh(9), GRID, num_classes=4).eval()
    scores = network(ids)
    assert scores.abs().max() < 1e-3
    assert scores.abs().max() > 0, "but can learn"


def test_scores_and_features_are_single_precision_under_autocast(ids: Tensor) -> None:
    network = classifier("mean", "batchnorm_linear")
    with torch.autocast("cpu", torch.bfloat16):
        assert network.features(ids).dtype == torch.float32
        assert network(ids).dtype == torch.float32


@pytest.mark.parametrize(("pool", "other"), [("mean", "class"), ("class", "mean")])
def test_another_pooling_than_the_trained_one_is_refused(ids: Tensor, pool: Pool, other: Pool) -> None:
    network = classifier(pool)
    assert torch.equal(network.features(ids, pool), network.features(ids))
    with pytest.raises(ValueError, match=f"trained on pool='{pool}', not '{other}'"):
        network.features(ids, other)
