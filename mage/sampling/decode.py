"""Iterative parallel decoding: fill a partly masked token grid in a few passes (paper, section 3.2; MaskGIT, 3.2).

In each step the network scores all unknown positions at once, a code is sampled for each, and the least confident
ones are forgotten again; fewer and fewer are, after a schedule. The sampler knows nothing of images or of the network:
it starts from any grid and calls any function that gives logits.

Letters: n grids, l tokens, u positions that are scored, c codes.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mage import rng
from mage.masking import num_still_masked
from mage.sampling.draw import draw_codes, gumbel_noise
from mage.sampling.settings import SamplingConfig

UNKNOWN = -1
"""The value of a token that is not known yet."""

LogitsFn = Callable[[Tensor, Tensor, float], Tensor]
"""Grids (n, l) with UNKNOWN at masked positions, positions (n, u), and the part of the steps that this one completes,
from above 0 to 1 -> logits of the codes there (n, u, c)."""


def decode(
    tokens: Int[Tensor, "n l"],
    logits_fn: LogitsFn,
    *,
    generators: Sequence[torch.Generator],
    settings: SamplingConfig = SamplingConfig(),  # noqa: B008  # frozen
    priority: Float[Tensor, "n l"] | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Int[Tensor, "n l"]:
    """Fill the unknown tokens of each grid; known ones stay as they are.

    generators: one per grid, so that a grid's result does not depend on the others in its batch.
    priority: tokens with the smallest become known first; without it the most confident ones do. The confidence is the
    log-probability at temperature 1, whatever codes are drawn from, plus Gumbel noise that falls to 0 at the last step.
    on_step: called before each step with its number and the grids so far.
    Raises ValueError unless there is one generator per grid.
    """
    if len(generators) != len(tokens):
        raise ValueError(f"{len(generators)} generators for {len(tokens)} grids: give one per grid")
    tokens = tokens.long()
    length, steps = tokens.shape[1], settings.steps
    at_start: list[int] = (tokens == UNKNOWN).sum(dim=1).tolist()
    unknown_counts = list(at_start)
    for step in range(steps):
        if on_step is not None:
            on_step(step, tokens)
        progress = (step + 1) / steps
        unknown = tokens == UNKNOWN
        places = first_places(unknown, unknown_counts)
        asked = unknown.gather(1, places)
        log_probability = logits_fn(tokens, places, progress).float().log_softmax(dim=-1)
        sampled = draw_codes(
            log_probability,
            generators,
            places,
            length,
            temperature=settings.token_temperature_at(progress),
            top_k=settings.top_k,
            top_p=settings.top_p,
        )
        if priority is not None:
            confidence = -priority.gather(1, places)
        else:
            confidence = log_probability.gather(2, sampled[..., None])[..., 0]
            noise_weight = settings.choice_temperature * (1 - progress)
            if noise_weight > 0:
                uniform = rng.uniform_rows(generators, length, like=confidence).gather(1, places)
                confidence = confidence + noise_weight * gumbel_noise(uniform)
        confidence = confidence.masked_fill(~asked, torch.inf)
        # How many stay masked follows from the schedule alone, so nothing is read back from the device.
        unknown_counts = [
            0 if step == steps - 1 else num_still_masked(start, now, step, steps, settings.schedule, settings.power)
            for start, now in zip(at_start, unknown_counts, strict=True)
        ]
        rank = confidence.argsort(dim=1, stable=True).argsort(dim=1)
        forgotten = rank < torch.tensor(unknown_counts, device=rank.device)[:, None]
        tokens = tokens.scatter(1, places, torch.where(asked & ~forgotten, sampled, tokens.gather(1, places)))
    return tokens


def first_places(chosen: Bool[Tensor, "n l"], counts: Sequence[int]) -> Int[Tensor, "n u"]:
    """Each grid's chosen positions, in order; where others have more, some of its other ones, which are to be ignored.

    counts: how many each grid has, known without asking the device.
    """
    order = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, : max(1, *counts)] if counts else order
