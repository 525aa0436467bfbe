"""The exact mean code length of a small grid: the chain rule along every order of its tokens, with plain loops."""

import math
from itertools import permutations

import torch

from mage.masking import Mask
from mage.models import MAGETransformer


def mean_over_all_orders(network: MAGETransformer, grid: list[int], number: int | None = None) -> float:
    """-ln p of one grid in nats, averaged over all orders; number: its class. Nothing is dropped."""
    classes = None if number is None else torch.tensor([number])
    lengths = []
    for order in permutations(range(len(grid))):
        nats = 0.0
        for count, token in enumerate(order):
            hidden = torch.tensor([[place not in order[:count] for place in range(len(grid))]])
            output = network(torch.tensor([grid]), Mask.nothing_dropped(hidden), classes)
            scores = output.code_logits[0, token].tolist()
            most = max(scores)
            nats += most + math.log(sum(math.exp(score - most) for score in scores)) - scores[grid[token]]
        lengths.append(nats)
    return sum(lengths) / len(lengths)
