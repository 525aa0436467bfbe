"""Revision: after the last step, mask a part of the new tokens and draw them again, given all the others.

Iterative decoding never changes a token once it is known, so early mistakes stay. A round of revision masks a share of
the new tokens, either at random or those least likely under the network itself: each half of the tokens is scored by a
pass that sees the other half. This critic needs no training (after Lezama et al. 2022, whose critic is a second
network).

Letters: n grids, l tokens.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mage import rng
from mage.sampling.decode import UNKNOWN, LogitsFn, first_places
from mage.sampling.draw import draw_codes
from mage.sampling.settings import SamplingConfig


def revise(
    tokens: Int[Tensor, "n l"],
    new: Bool[Tensor, "n l"],
    logits_fn: LogitsFn,
    *,
    generators: Sequence[torch.Generator],
    settings: SamplingConfig,
) -> Int[Tensor, "n l"]:
    """Redraw a share of the `new` tokens of complete grids, in `settings.revisions` rounds; other tokens are kept."""
    rows = rng.UniformRows(generators, tokens.shape[1], tokens.device, ahead=2 * max(1, settings.revisions))
    totals: list[int] = new.sum(dim=1).tolist()
    for number in range(settings.revisions):
        share = settings.revise_share * (1 - number / settings.revisions)
        counts = [math.ceil(share * total) for total in totals]
        by_critic = settings.revise_by == "critic"
        score = own_likelihood(tokens, new, logits_fn, rows) if by_critic else rows.next()
        rank = score.masked_fill(~new, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
        forgotten = rank < torch.tensor(counts, device=rank.device)[:, None]
        places = first_places(forgotten, counts)
        scores = logits_fn(tokens.masked_fill(forgotten, UNKNOWN), places, 1.0).float().log_softmax(dim=-1)
        drawing = settings.drawing_at(1.0)
        uniform = rows.next().gather(1, places) if drawing["temperature"] else None
        drawn = draw_codes(scores, uniform, **drawing)
        old = tokens.gather(1, places)
        tokens = tokens.scatter(1, places, torch.where(forgotten.gather(1, places), drawn, old))
    return tokens


def own_likelihood(
    tokens: Int[Tensor, "n l"], new: Bool[Tensor, "n l"], logits_fn: LogitsFn, rows: rng.UniformRows
) -> Float[Tensor, "n l"]:
    """Log-probability of each new token given the known ones and the other half of the new ones; +inf elsewhere."""
    noise = rows.next().masked_fill(~new, 2.0)
    rank = noise.argsort(dim=1, stable=True).argsort(dim=1)
    totals: list[int] = new.sum(dim=1).tolist()
    halves = torch.tensor([total // 2 for total in totals], device=rank.device)[:, None]
    result = tokens.new_full(tokens.shape, math.inf, dtype=torch.float32)
    for hidden, counts in (
        (new & (rank < halves), [total // 2 for total in totals]),
        (new & (rank >= halves), [total - total // 2 for total in totals]),
    ):
        if max(counts, default=0) == 0:
            continue
        places = first_places(hidden, counts)
        scores = logits_fn(tokens.masked_fill(hidden, UNKNOWN), places, 1.0).float().log_softmax(dim=-1)
        likelihood = scores.gather(2, tokens.gather(1, places)[..., None])[..., 0]
        result = result.scatter(1, places, torch.where(hidden.gather(1, places), likelihood, result.gather(1, places)))
    return result
