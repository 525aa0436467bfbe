"""Surprise of every token with plain loops: hide its part, ask the network, and read the probability of its code."""

import math

import torch

from mage.masking import Mask
from mage.models import MAGETransformer


def looped_surprise(
    network: MAGETransformer, grid: list[int], divisions: list[list[int]], number: int | None
) -> list[float]:
    """-ln p of each token of one grid, averaged over divisions that name the part of each token.

    number: the class of the grid.
    """
    sums = [0.0] * len(grid)
    for part_of in divisions:
        for token, code in enumerate(grid):
            hidden = [part_of[other] == part_of[token] for other in range(len(grid))]
            seen = [0 if hidden[other] else grid[other] for other in range(len(grid))]
            dropped = hidden if network.config.decoder_depth else [False] * len(grid)
            classes = None if number is None else torch.tensor([number])
            output = network(torch.tensor([seen]), Mask(torch.tensor([hidden]), torch.tensor([dropped])), classes)
            scores = output.code_logits[0, token].tolist()
            most = max(scores)
            total = most + math.log(sum(math.exp(score - most) for score in scores))
            sums[token] += total - scores[code]
    return [value / len(divisions) for value in sums]
