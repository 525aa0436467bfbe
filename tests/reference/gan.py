"""Adversarial losses, blur and the small discriminators' arithmetic, written from their papers with loops."""

import math

import torch
from torch import Tensor


def discriminator_loss_by_loops(real: Tensor, fake: Tensor, kind: str) -> float:
    """Hinge (Esser et al. 2021) or non-saturating (Goodfellow et al. 2014)."""
    a, b = real.flatten().tolist(), fake.flatten().tolist()
    if kind == "hinge":
        return 0.5 * (sum(max(0, 1 - x) for x in a) / len(a) + sum(max(0, 1 + x) for x in b) / len(b))
    return sum(-math.log(sigmoid(x)) for x in a) / len(a) + sum(-math.log(1 - sigmoid(x)) for x in b) / len(b)


def generator_loss_by_loops(fake: Tensor, kind: str) -> float:
    """What the generator pays."""
    verdicts = fake.flatten().tolist()
    each = [-x if kind == "hinge" else -math.log(sigmoid(x)) for x in verdicts]
    return sum(each) / len(each)


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x)."""
    return 1 / (1 + math.exp(-x))


def blur_by_loops(plane: Tensor) -> Tensor:
    """(H, W) -> (H/2, W/2): binomial blur of four taps around the middle of each 2 x 2 cell; edges repeat."""
    taps = [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    height, width = plane.shape
    result = torch.zeros(height // 2, width // 2)
    for y in range(height // 2):
        for x in range(width // 2):
            for i, a in enumerate(taps):
                for j, b in enumerate(taps):
                    row = min(max(2 * y + i - 1, 0), height - 1)
                    column = min(max(2 * x + j - 1, 0), width - 1)
                    result[y, x] += a * b * plane[row, column]
    return result
