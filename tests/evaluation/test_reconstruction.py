"""Distances of images and information in tokens, compared with plain loops."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from mage import images, rng
from mage.evaluation.codes import (
    divergence,
    divergence_by_chance,
    label_information,
    position_entropy,
    token_histograms,
)
from mage.evaluation.reconstruction import ssim


def ssim_by_loops(x: np.ndarray, y: np.ndarray, side: int) -> float:
    """Wang et al. 2004, equation 13, window by window, one channel."""
    taps = [math.exp(-((i - side // 2) ** 2) / (2 * 1.5**2)) for i in range(side)]
    weights = np.outer(taps, taps) / sum(taps) ** 2
    values = []
    for top in range(x.shape[0] - side + 1):
        for left in range(x.shape[1] - side + 1):
            a, b = x[top : top + side, left : left + side], y[top : top + side, left : left + side]
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            both = (weights * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
                / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
            )  # fmt: skip
    return float(np.mean(values))


@pytest.mark.parametrize(("shape", "side"), [((14, 13), 11), ((8, 9), 7), ((1, 1), 1)])
def test_ssim_by_loops(shape: tuple[int, int], side: int, generator: torch.Generator) -> None:
    x = torch.rand(2, 2, *shape, generator=generator)
    y = (x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    found = ssim(x, y)
    for index in range(2):
        each = [ssim_by_loops(x[index, c].double().numpy(), y[index, c].double().numpy(), side) for c in range(2)]
        assert found[index].item() == pytest.approx(sum(each) / 2, abs=2e-4)
    torch.testing.assert_close(ssim(x, x), torch.ones(2))


def test_psnr_by_hand() -> None:
    black, grey = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.1)
    assert images.psnr(black, grey).item() == pytest.approx(20, abs=1e-4)
    assert images.psnr(grey, grey).item() == pytest.approx(100)


def test_position_entropy_by_hand() -> None:
    ids = torch.tensor([[[0, 3]], [[1, 3]], [[2, 3]], [[3, 3]]])
    assert position_entropy(ids, 4).tolist() == [[2.0, 0.0]]


def test_label_information_is_what_counting_says(generator: torch.Generator) -> None:
    labels = torch.randint(0, 3, (3000,), generator=generator)
    noise = torch.randint(0, 5, (3000,), generator=generator)
    ids = torch.stack([labels, noise, (labels + (noise == 0)) % 3], dim=1)[:, None, :]
    found = label_information(ids, labels, 5)[0]

    def information(codes: Tensor) -> float:
        pairs, first, second = (
            Counter(zip(codes.tolist(), labels.tolist(), strict=True)),
            Counter(codes.tolist()),
            Counter(labels.tolist()),
        )
        return sum(n / 3000 * math.log2(n * 3000 / (first[a] * second[b])) for (a, b), n in pairs.items())

    assert found[0].item() == pytest.approx(information(labels), abs=0.01)
    assert found[1].item() == pytest.approx(0, abs=0.01)
    assert found[2].item() == pytest.approx(information(ids[:, 0, 2]), abs=0.01)
    assert found[0] > found[2] > found[1]


def test_histograms_count() -> None:
    ids = torch.tensor([[[0, 1], [1, 1]], [[2, 2], [2, 0]]])
    assert token_histograms(ids, 4).tolist() == [[1, 3, 0, 0], [1, 0, 3, 0]]


def test_divergence_by_chance_is_that_of_few_tokens_from_the_same_source() -> None:
    counts = torch.randint(1, 100, (256,), generator=rng.generator(0)).double()
    random = rng.generator(1)

    def drawn(tokens: int) -> Tensor:
        codes = counts.multinomial(tokens, replacement=True, generator=random)
        return torch.bincount(codes, minlength=256).double()

    for tokens, others in ((100, 100_000), (300, 300), (300, 5000)):  # neither has seen all of the 256 codes
        one, other = drawn(tokens), drawn(others)
        chance = divergence_by_chance(one, other)
        assert chance > 0.05
        assert abs(divergence(one, other) - chance) < 0.06
    assert 0 < divergence_by_chance(drawn(100_000), drawn(100_000)) < 0.001


def test_divergence_is_zero_for_equals_and_one_for_strangers() -> None:
    one, other = torch.tensor([2.0, 2.0, 0.0]), torch.tensor([0.0, 0.0, 5.0])
    assert divergence(one, 10 * one) == pytest.approx(0, abs=1e-12)
    assert divergence(one, other) == pytest.approx(1)
    assert divergence(one, torch.tensor([1.0, 3.0, 0.0])) == pytest.approx(
        divergence(torch.tensor([1.0, 3.0, 0.0]), one)
    )
