"""From a model to complete grids, in batches; image k of a seed does not depend on its batch.

Letters: n images, l tokens, u positions that are scored.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import rng
from mage.masking import Mask
from mage.models.mage import MAGETransformer
from mage.nn.grids import area
from mage.sampling.decode import UNKNOWN, LogitsFn, OnStep, decode
from mage.sampling.guidance import guided
from mage.sampling.orders import priorities
from mage.sampling.reuse import ReusedPasses
from mage.sampling.revise import revise
from mage.sampling.settings import SamplingConfig

ScoreAll = Callable[[Tensor, Tensor], Tensor]
"""Grids (n, l) and their classes (n,), -1 = none -> scores of all codes at all positions (n, l, c)."""


def logits_function(
    transformer: MAGETransformer,
    encoder_keep: float = 1.0,
    noise: Callable[[], Tensor] | None = None,
    classes: Int[Tensor, " n"] | None = None,
) -> LogitsFn:
    """The network as a logits function for the sampler: unknown tokens enter as mask tokens.

    encoder_keep: below 1, unknown tokens are dropped at random before the encoder, as in training, until this share
    of all tokens is left or none is unknown; noise: gives a number per token (n, l) that decides which.
    classes: one per grid, -1 = none.
    """

    def logits(tokens: Int[Tensor, "n l"], places: Int[Tensor, "n u"], progress: float) -> Tensor:
        unknown = tokens == UNKNOWN
        if encoder_keep == 1:
            return transformer(tokens, Mask.nothing_dropped(unknown), classes).code_logits_at(places)  # type: ignore[no-any-return]
        most = tokens.shape[1] - math.ceil(encoder_keep * tokens.shape[1])
        assert noise is not None
        order_of = noise().masked_fill(~unknown, 2.0)
        counts = unknown.sum(dim=1).clamp(max=most)
        dropped = order_of.argsort(dim=1, stable=True).argsort(dim=1) < counts[:, None]
        parts = {}
        # A batch has one length: grids that drop the same number form one (all of them, unless it is an edit).
        for count in set(counts.tolist()):
            rows = (counts == count).nonzero()[:, 0]
            mask = Mask(masked=unknown[rows], dropped=dropped[rows])
            output = transformer(tokens[rows], mask, None if classes is None else classes[rows])
            parts[count] = rows, output.code_logits_at(places[rows])
        order = torch.cat([rows for rows, _ in parts.values()]).argsort()
        return torch.cat([scores for _, scores in parts.values()])[order]

    return logits


def scores_everywhere(
    transformer: MAGETransformer, tokens: Int[Tensor, "n l"], classes: Int[Tensor, " n"]
) -> Float[Tensor, "n l c"]:
    """Scores of all codes at all positions: a pass of one shape, whatever is known. classes: -1 = none."""
    wanted = classes if transformer.config.num_classes else None
    scores: Tensor = transformer(tokens, Mask.nothing_dropped(tokens == UNKNOWN), wanted).code_logits
    return scores


def _passes(
    transformer: MAGETransformer,
    settings: SamplingConfig,
    classes: Int[Tensor, " n"] | None,
    dropping: rng.UniformRows,
    everywhere: ScoreAll | None,
) -> LogitsFn:
    """The network for one batch, with its classes and guidance, and with what it keeps between its passes."""

    def scores_of(classes: Int[Tensor, " n"] | None, noise: Callable[[], Tensor]) -> LogitsFn:
        if everywhere is not None and settings.reuse == settings.encoder_keep == 1:
            return partial(_chosen, everywhere, classes)
        if settings.reuse > 1:
            return ReusedPasses(
                transformer, settings.complete_at, classes, encoder_keep=settings.encoder_keep, noise=noise
            )
        return logits_function(transformer, settings.encoder_keep, noise, classes)

    scores = scores_of(classes, dropping.next)
    if classes is None or not settings.guidance:
        return scores
    both = torch.cat([classes, torch.full_like(classes, -1)])
    twice = scores_of(both, lambda: dropping.next().repeat(2, 1))  # both copies drop the same tokens
    return guided(twice, scores if settings.reuse == 1 else None, settings)


def _chosen(
    everywhere: ScoreAll,
    classes: Int[Tensor, " n"] | None,
    tokens: Int[Tensor, "n l"],
    places: Int[Tensor, "n u"],
    progress: float,
) -> Float[Tensor, "n u c"]:
    """Scores at the places, of a pass that scores all."""
    scores = everywhere(tokens, tokens.new_full((len(tokens),), -1) if classes is None else classes)
    return scores.gather(1, places[..., None].expand(-1, -1, scores.shape[2]))


def fill(
    transformer: MAGETransformer,
    start: Int[Tensor, "n l"],
    *,
    indices: Sequence[int],
    seed: int,
    stream: str,
    settings: SamplingConfig,
    batch_size: int,
    classes: Int[Tensor, " n"] | None = None,
    on_batch: Callable[[int], None] | None = None,
    on_step: OnStep | None = None,
    everywhere: ScoreAll | None = None,
) -> Iterator[Int[Tensor, "b l"]]:
    """Decode the grids of `start` batch by batch; grid i has the random stream (seed, stream, indices[i]).

    classes: the class of each grid, -1 = none. on_step: called before each step of a batch, as by `decode`.
    everywhere: `scores_everywhere` of the network, recorded, for passes that compute all positions.
    """

    def streams(name: str, chosen: Sequence[int]) -> list[torch.Generator]:
        return [rng.generator(seed, f"{stream}{name}", index) for index in chosen]

    for first in range(0, len(start), batch_size):
        chosen = indices[first : first + batch_size]
        tokens = start[first : first + batch_size]
        wanted = None if classes is None else classes[first : first + batch_size]
        dropping = rng.UniformRows(
            streams(" drop", chosen), tokens.shape[1], tokens.device, ahead=settings.steps + 3 * settings.revisions
        )
        filled = decode(
            tokens,
            _passes(transformer, settings, wanted, dropping, everywhere),
            generators=streams("", chosen),
            settings=settings,
            priority=priorities(settings.order, transformer.grid, streams(" order", chosen), tokens.device),
            on_step=on_step,
        )
        if settings.revisions:
            complete = _passes(transformer, replace(settings, reuse=1), wanted, dropping, everywhere)
            filled = revise(
                filled, tokens == UNKNOWN, complete, generators=streams(" revise", chosen), settings=settings
            )
        yield filled
        if on_batch is not None:
            on_batch(len(chosen))


def unknown_grids(transformer: MAGETransformer, count: int, device: torch.device) -> Int[Tensor, "n l"]:
    """Grids without any known token."""
    return torch.full((count, area(transformer.grid)), UNKNOWN, device=device)
