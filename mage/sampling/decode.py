"""Iterative parallel decoding: complete a partly masked token grid in a few passes (section 3.2; MaskGIT, 3.2).

In each step the network scores all unknown positions at once, a code is sampled for each, and the least confident
codes are masked again; a schedule says how many, fewer in each step. The sampler is independent of images and network:
it starts from any grid and calls any function that returns logits.

Letters: n grids, l tokens, u positions that are scored, c codes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from mage import rng
from mage.device import send
from mage.masking import num_still_masked
from mage.sampling.draw import draw_codes, gumbel_noise, relaxed_codes
from mage.sampling.likely import LastScores
from mage.sampling.settings import SamplingConfig

UNKNOWN = -1
"""The value of a token that is not known yet."""

CANDIDATES = 2
"""Positions that are scored for each that becomes known, in a pass that computes few, in the order of confidence."""
LogitsFn = Callable[[Tensor, Tensor, float], Tensor]
"""Grids (n, l) with UNKNOWN at masked positions, positions (n, u), and the part of the steps that this one completes,
from above 0 to 1 -> logits of the codes there (n, u, c)."""
OnStep = Callable[[int, Tensor], None]
"""Called before each step with its number and the grids so far."""


def decode(
    tokens: Int[Tensor, "n l"],
    logits_fn: LogitsFn,
    *,
    generators: Sequence[torch.Generator],
    settings: SamplingConfig = SamplingConfig(),  # noqa: B008  # frozen
    priority: Float[Tensor, "n l"] | None = None,
    on_step: OnStep | None = None,
    **changes: Any,
) -> Int[Tensor, "n l"]:
    """Predict the unknown tokens of each grid; known tokens are kept.

    settings: of the sampler; changes: replace single settings, such as steps=8.
    generators: one per grid, so that a grid's result does not depend on the rest of its batch.
    priority: tokens with the smallest become known first; without it, the most confident ones. The confidence is the
    log-probability at temperature 1, whichever temperature codes are drawn at, plus Gumbel noise that falls to 0.
    on_step: called before each step with its number and the grids so far.
    Raises ValueError unless there is one generator per grid.
    """
    return _decode(tokens, logits_fn, generators, replace(settings, **changes), priority, on_step, None).tokens


def decode_relaxed(
    tokens: Int[Tensor, "n l"],
    logits_fn: LogitsFn,
    *,
    generators: Sequence[torch.Generator],
    settings: SamplingConfig = SamplingConfig(),  # noqa: B008  # frozen
    priority: Float[Tensor, "n l"] | None = None,
    on_step: OnStep | None = None,
    softness: float = 1.0,
    **changes: Any,
) -> Float[Tensor, "n l c"]:
    """Like `decode`, but returns differentiable one-hot rows instead of codes.

    Gradients flow to the logits that each token was drawn from, by a Gumbel softmax with temperature `softness` (see
    `draw.relaxed_codes`), so that a loss on embeddings (rows @ codebook) can train a network through its samples. Later
    steps see the codes, without gradient. Every pass is asked for all unknown positions, whatever `settings.reuse` is.
    """
    rows = _decode(tokens, logits_fn, generators, replace(settings, **changes), priority, on_step, softness).rows
    assert rows is not None
    return rows


class _Decoded(NamedTuple):
    tokens: Int[Tensor, "n l"]
    rows: Float[Tensor, "n l c"] | None


def _decode(
    tokens: Int[Tensor, "n l"],
    logits_fn: LogitsFn,
    generators: Sequence[torch.Generator],
    settings: SamplingConfig,
    priority: Float[Tensor, "n l"] | None,
    on_step: OnStep | None,
    softness: float | None,
) -> _Decoded:
    """softness: None for codes alone."""
    if len(generators) != len(tokens):
        raise ValueError(f"{len(generators)} generators for {len(tokens)} grids: give one per grid")
    tokens = tokens.long()
    length, steps = tokens.shape[1], settings.steps
    at_start: list[int] = (tokens == UNKNOWN).sum(dim=1).tolist()
    unknown_counts = list(at_start)
    # Every random number of all steps but those of relaxed draws, which take one per code and not per position.
    noises = rng.UniformRows(generators, length, tokens.device, ahead=2 * steps if softness is None else 1)
    last = LastScores() if settings.reuse > 1 and priority is None and softness is None else None
    rows: Tensor | None = None
    for step in range(steps):
        if on_step is not None:
            on_step(step, tokens)
        progress = (step + 1) / steps
        unknown = tokens == UNKNOWN
        # The number of masked tokens follows from the schedule alone, so nothing is read back from the device.
        left = [
            0 if step == steps - 1 else num_still_masked(start, now, step, steps, settings.schedule, settings.power)
            for start, now in zip(at_start, unknown_counts, strict=True)
        ]
        revealed = [now - then for now, then in zip(unknown_counts, left, strict=True)]
        drawing = settings.drawing_at(progress)
        uniform = noises.next() if softness is None and drawing["temperature"] else None
        scored, counts = unknown, unknown_counts
        if priority is not None:  # the positions that become known are fixed before the pass: no other score is needed
            scored, counts = _surest(-priority, unknown, unknown_counts, revealed), revealed
        else:
            noise = _choice_noise(noises, tokens, settings, progress)
            if last is not None and not settings.complete_at(progress):  # a pass that computes few positions
                counts = [min(now, CANDIDATES * few) for now, few in zip(unknown_counts, revealed, strict=True)]
                scored = _surest(last.confidence(uniform, drawing) + noise, unknown, unknown_counts, counts)
        places = first_places(scored, counts)
        unknown_at = taken = scored.gather(1, places)
        # What stands behind a shorter row is nothing to compute: it asks for the row's first position again.
        wanted = torch.where(unknown_at, places, places[:, :1])
        log_probability = logits_fn(tokens, wanted, progress).float().log_softmax(dim=-1)
        drawn: Tensor | None = None
        if softness is None:
            sampled = draw_codes(log_probability, None if uniform is None else uniform.gather(1, places), **drawing)
        else:
            drawn = relaxed_codes(log_probability, generators, places, length, **drawing, softness=softness)
            sampled = drawn.detach().argmax(dim=-1)
            log_probability = log_probability.detach()
        if last is not None:
            last.update(log_probability, places, unknown_at, length)
        if priority is None:
            confidence = log_probability.gather(2, sampled[..., None])[..., 0] + noise.gather(1, places)
            taken = _surest(confidence, unknown_at, counts, revealed)
        unknown_counts = left
        tokens = tokens.scatter(1, places, torch.where(taken, sampled, tokens.gather(1, places)))
        if drawn is not None:
            if rows is None:
                rows = functional.one_hot(tokens.clamp(min=0), drawn.shape[-1]).to(drawn)
            wide = places[..., None].expand_as(drawn)
            rows = rows.scatter(1, wide, torch.where(taken[..., None], drawn, rows.gather(1, wide)))
    return _Decoded(tokens, rows)


def _choice_noise(
    noises: rng.UniformRows, tokens: Int[Tensor, "n l"], settings: SamplingConfig, progress: float
) -> Float[Tensor, "n l"]:
    """Gumbel noise on the confidences of a step, falling to 0 at the last one; no number is drawn where it is 0."""
    weight = settings.choice_temperature * (1 - progress)
    if weight <= 0:
        return torch.zeros(tokens.shape, device=tokens.device)
    return weight * gumbel_noise(noises.next())


def _surest(
    confidence: Float[Tensor, "n u"], chosen: Bool[Tensor, "n u"], counts: Sequence[int], wanted: Sequence[int]
) -> Bool[Tensor, "n u"]:
    """The most confident of the chosen positions. counts: chosen ones of each grid; wanted: how many of them."""
    rank = confidence.masked_fill(~chosen, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    rejected = torch.tensor([count - want for count, want in zip(counts, wanted, strict=True)])
    return chosen & (rank >= send(rejected, rank.device)[:, None])


def first_places(chosen: Bool[Tensor, "n l"], counts: Sequence[int]) -> Int[Tensor, "n u"]:
    """Each grid's chosen positions, in order; shorter rows are padded with positions that were not chosen.

    counts: chosen positions of each grid, known without reading from the device.
    """
    order = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, : max(1, *counts)] if counts else order
