"""Iterative parallel decoding: fill a partly masked token grid in a few passes (paper, section 3.2; MaskGIT, 3.2).

In each step the network scores all unknown positions at once, a code is sampled for each, and the least confident
ones are forgotten again; fewer and fewer are, after a cosine schedule. The sampler knows nothing of images or of the
network: it starts from any grid and calls any function that gives logits.

Letters: n grids, l tokens, u positions that are scored, c codes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import rng
from mage.masking import num_still_masked

UNKNOWN = -1
"""The value of a token that is not known yet."""

LogitsFn = Callable[[Tensor, Tensor], Tensor]
"""Grids (n, l) with UNKNOWN at masked positions, and positions (n, u) -> logits of the codes there (n, u, c)."""


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of the sampler; the defaults are the published ones for ViT-B."""

    steps: int = 20
    """Network passes per image."""
    choice_temperature: float = 6.0
    """Weight of the noise on confidences: more means more variety."""
    token_temperature: float = 1.0
    """Temperature of the softmax that codes are drawn from; 0 takes the most probable code."""
    encoder_keep: float = 1.0
    """Share of the tokens that the encoder sees while more are unknown: 0.5 is what it saw in training, and faster."""

    def __post_init__(self) -> None:
        if not 0 < self.encoder_keep <= 1:
            raise ValueError(f"encoder_keep must lie in (0, 1], not {self.encoder_keep}")


def decode(
    tokens: Int[Tensor, "n l"],
    logits_fn: LogitsFn,
    *,
    generators: Sequence[torch.Generator],
    steps: int = 20,
    choice_temperature: float = 6.0,
    token_temperature: float = 1.0,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Int[Tensor, "n l"]:
    """Fill the unknown tokens of each grid; known ones stay as they are.

    generators: one per grid, so that a grid's result does not depend on the others in its batch.
    choice_temperature: weight of the Gumbel noise on confidences, falling linearly to 0 at the last step.
    token_temperature: of the softmax that codes are drawn from; 0 takes the most probable code. The confidence is
    the log-probability at temperature 1 either way.
    on_step: called before each step with its number and the grids so far.
    Raises ValueError for impossible settings.
    """
    if steps < 1:
        raise ValueError(f"decoding needs at least 1 step, not {steps}")
    if choice_temperature < 0 or token_temperature < 0:
        raise ValueError(f"temperatures must not be negative: {choice_temperature}, {token_temperature}")
    if len(generators) != len(tokens):
        raise ValueError(f"{len(generators)} generators for {len(tokens)} grids: give one per grid")
    tokens = tokens.long()
    length = tokens.shape[1]
    at_start: list[int] = (tokens == UNKNOWN).sum(dim=1).tolist()
    unknown_counts = list(at_start)
    for step in range(steps):
        if on_step is not None:
            on_step(step, tokens)
        unknown = tokens == UNKNOWN
        # Each grid's unknown positions, in order; where others have more, some of its known ones, which are ignored.
        order = (~unknown).to(torch.uint8).argsort(dim=1, stable=True)
        places = order[:, : max(1, *unknown_counts)] if unknown_counts else order
        asked = unknown.gather(1, places)
        log_probability = logits_fn(tokens, places).float().log_softmax(dim=-1)
        sampled = _sample(log_probability, token_temperature, generators, places, length)
        confidence = log_probability.gather(2, sampled[..., None])[..., 0]
        noise_weight = choice_temperature * (1 - (step + 1) / steps)
        if noise_weight > 0:
            uniform = rng.uniform_rows(generators, length, like=confidence).gather(1, places)
            confidence = confidence + noise_weight * _gumbel(uniform)
        confidence = confidence.masked_fill(~asked, torch.inf)
        # How many stay masked follows from the schedule alone, so nothing is read back from the device.
        last = step == steps - 1
        unknown_counts = [
            0 if last else num_still_masked(start, now, step, steps)
            for start, now in zip(at_start, unknown_counts, strict=True)
        ]
        rank = confidence.argsort(dim=1, stable=True).argsort(dim=1)
        forgotten = rank < torch.tensor(unknown_counts, device=rank.device)[:, None]
        tokens = tokens.scatter(1, places, torch.where(asked & ~forgotten, sampled, tokens.gather(1, places)))
    return tokens


def _sample(
    log_probability: Float[Tensor, "n u c"],
    temperature: float,
    generators: Sequence[torch.Generator],
    places: Int[Tensor, "n u"],
    length: int,
) -> Int[Tensor, "n u"]:
    """One code per place, by inverting the distribution function; each position of the grid has its own number."""
    if temperature == 0:
        return log_probability.argmax(dim=-1)
    cumulative = (log_probability / temperature).softmax(dim=-1).cumsum(dim=-1)
    uniform = rng.uniform_rows(generators, length, like=log_probability).gather(1, places)
    threshold = uniform[..., None] * cumulative[..., -1:]
    codes = torch.searchsorted(cumulative, threshold, right=True)[..., 0]
    return codes.clamp(max=log_probability.shape[-1] - 1)


def _gumbel(uniform: Float[Tensor, "n l"]) -> Float[Tensor, "n l"]:
    tiny = torch.finfo(uniform.dtype).tiny
    return -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
