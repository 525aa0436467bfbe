"""Quantizers against plain loops, and the codebook's life."""

import math

import pytest
import torch
from torch import Tensor

from mage.tokenizers.quantizers import NormalizedQuantizer, QuantizerConfig, VectorQuantizer, codebook_usage


@pytest.fixture
def latent(generator: torch.Generator) -> Tensor:
    return torch.randn(2, 4, 3, 3, generator=generator)


def nearest_by_loops(latent: Tensor, words: Tensor) -> list[int]:
    found = []
    for vector in latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1]).tolist():
        distances = [sum((a - b) ** 2 for a, b in zip(vector, word, strict=True)) for word in words.tolist()]
        found.append(distances.index(min(distances)))
    return found


def test_ids_are_the_nearest_words(latent: Tensor, generator: torch.Generator) -> None:
    quantizer = VectorQuantizer(QuantizerConfig(num_codes=10), 4)
    quantizer.codebook.data = torch.randn(10, 4, generator=generator)
    assert quantizer.ids(latent).flatten().tolist() == nearest_by_loops(latent, quantizer.codebook.data)


def test_ids_on_the_sphere_are_the_nearest_words_too(latent: Tensor) -> None:
    quantizer = NormalizedQuantizer(QuantizerConfig(num_codes=10), 4)
    unit = torch.nn.functional.normalize(latent, dim=1)
    assert quantizer.ids(latent).flatten().tolist() == nearest_by_loops(unit, quantizer.codebook)


def test_loss_and_gradients_are_those_of_the_formula(latent: Tensor, generator: torch.Generator) -> None:
    quantizer = VectorQuantizer(QuantizerConfig(num_codes=6, commitment=0.25), 4)
    quantizer.codebook.data = torch.randn(6, 4, generator=generator)
    latent.requires_grad_(True)
    output = quantizer(latent)
    words = quantizer.lookup(output.ids).detach()
    assert output.loss.item() == pytest.approx(1.25 * (latent.detach() - words).square().mean().item(), rel=1e-5)
    assert torch.allclose(output.vectors, words, atol=1e-6)
    (output.vectors.sum() + output.loss).backward()
    difference = latent.detach() - words
    assert latent.grad is not None
    torch.testing.assert_close(latent.grad, 1 + 0.25 * 2 * difference / difference.numel())
    expected = torch.zeros(6, 4)
    for code, row in zip(output.ids.flatten(), difference.permute(0, 2, 3, 1).reshape(-1, 4), strict=True):
        expected[code] -= 2 * row / difference.numel()
    torch.testing.assert_close(quantizer.codebook.grad, expected)


def test_normalized_words_follow_the_running_mean_of_their_vectors(latent: Tensor) -> None:
    config = QuantizerConfig(kind="normalized", num_codes=3, warmup_steps=0, decay=0.5, revive_below=0.0)
    quantizer = NormalizedQuantizer(config, 4).train()
    quantizer(latent)  # k-means places the words
    words, sums, usage = quantizer.codebook.clone(), quantizer.sums.clone(), quantizer.usage.clone()
    ids = quantizer(latent).ids.flatten().tolist()
    rows = torch.nn.functional.normalize(latent, dim=1).permute(0, 2, 3, 1).reshape(-1, 4)
    assert ids == [int((words @ row).argmax()) for row in rows]
    for code in range(3):
        own = [row for row, chosen in zip(rows, ids, strict=True) if chosen == code]
        scale = 3 / len(rows)
        expected = 0.5 * sums[code] + 0.5 * scale * sum(own, torch.zeros(4))
        torch.testing.assert_close(quantizer.sums[code], expected)
        assert quantizer.usage[code].item() == pytest.approx(0.5 * usage[code].item() + 0.5 * scale * len(own))
        torch.testing.assert_close(quantizer.codebook[code], expected / expected.norm())


def test_unused_words_come_back_to_life() -> None:
    config = QuantizerConfig(kind="normalized", num_codes=64, warmup_steps=0)
    quantizer = NormalizedQuantizer(config, 8).train()
    random = torch.Generator().manual_seed(0)
    quantizer(torch.ones(4, 8, 4, 4) + 1e-3 * torch.randn(4, 8, 4, 4, generator=random))  # one cluster: words collapse
    for _ in range(400):
        output = quantizer(torch.randn(8, 8, 4, 4, generator=random))
    assert codebook_usage(output.ids, 64).used > 0.8


def test_warmup_passes_vectors_through() -> None:
    quantizer = NormalizedQuantizer(QuantizerConfig(kind="normalized", num_codes=8, warmup_steps=2), 4).train()
    latent = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(latent, dim=1)
    for _ in range(2):
        assert torch.equal(quantizer(latent).vectors, unit)
    assert not torch.equal(quantizer(latent).vectors, unit)


def test_usage_counts_and_perplexity() -> None:
    usage = codebook_usage(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), 8)
    assert usage.counts.tolist() == [2, 2, 2, 2, 0, 0, 0, 0]
    assert usage.used == 0.5
    assert usage.perplexity == pytest.approx(4.0)
    skewed = codebook_usage(torch.tensor([0, 0, 0, 1]), 2).perplexity
    assert skewed == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
