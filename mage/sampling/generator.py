"""From a model to filled grids, in batches; image k of a seed does not depend on the batch it was made in.

Letters: n images, l tokens.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mage import rng
from mage.masking import Mask
from mage.models.mage import MAGE
from mage.sampling.decode import UNKNOWN, LogitsFn, decode


def logits_function(transformer: MAGE) -> LogitsFn:
    """The network as a sampler wants it: nothing is dropped, unknown tokens enter as mask tokens."""

    def logits(tokens: Int[Tensor, "n l"]) -> Tensor:
        return transformer(tokens, Mask.nothing_dropped(tokens == UNKNOWN)).code_logits  # type: ignore[no-any-return]

    return logits


def fill(
    transformer: MAGE,
    start: Int[Tensor, "n l"],
    *,
    indices: Sequence[int],
    seed: int,
    stream: str,
    steps: int,
    choice_temperature: float,
    token_temperature: float,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> Iterator[Int[Tensor, "b l"]]:
    """Decode the grids of `start` batch by batch; grid i draws from the stream (seed, stream, indices[i])."""
    for first in range(0, len(start), batch_size):
        chosen = indices[first : first + batch_size]
        yield decode(
            start[first : first + batch_size],
            logits_function(transformer),
            generators=[rng.generator(seed, stream, index) for index in chosen],
            steps=steps,
            choice_temperature=choice_temperature,
            token_temperature=token_temperature,
        )
        if on_batch is not None:
            on_batch(len(chosen))


def unknown_grids(transformer: MAGE, count: int, device: torch.device) -> Int[Tensor, "n l"]:
    """Grids of which nothing is known."""
    return torch.full((count, transformer.grid[0] * transformer.grid[1]), UNKNOWN, device=device)
