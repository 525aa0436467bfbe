"""How long a grid is when it is told token by token in random order: -ln p(grid), in nats.

The chain rule holds for any order of the tokens, so a masked model is also a model of the whole grid, comparable with
n-grams and autoregressive models: -ln p(grid) = sum over k of -ln p(token k of the order | the k tokens before it).
The mean over all orders is L x the mean over k, over sets of k known tokens, and over the unknown tokens, of
-ln p(token | known ones), which a few passes estimate without bias (Uria et al. 2014, A deep and tractable density
estimator; Hoogeboom et al. 2022, Autoregressive diffusion models). Division by L ln 2 gives bits per token.

`surprise` is smaller: it tells every token from about half of the others or more, and its sum is no code length.

Letters: n grids, l tokens.
"""

from itertools import repeat

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import rng
from mage.models.mage import MAGETransformer
from mage.nn.grids import area
from mage.sampling.decode import UNKNOWN
from mage.sampling.generator import logits_function


def check_passes(grid: tuple[int, ...], passes: int) -> None:
    """Raise ValueError unless every pass can have its own number of known tokens."""
    if not 1 <= passes <= area(grid):
        raise ValueError(
            f"passes must lie between 1 and the {area(grid)} tokens of a grid, not {passes}: each pass knows another "
            "number of tokens"
        )


def code_length(
    network: MAGETransformer,
    tokens: Int[Tensor, "n l"],
    *,
    passes: int,
    encoder_keep: float,
    seed: int,
    classes: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "n"]:
    """-ln p of each complete grid, in nats, averaged over random orders; an unbiased estimate from `passes` passes.

    encoder_keep: as in the sampler's settings. classes: the class of each grid, -1 = none. Sets of known tokens are the
    same for all grids, so that a grid's number does not depend on its batch. Raises ValueError as `check_passes`.
    """
    check_passes(network.grid, passes)
    length, device = tokens.shape[1], tokens.device
    total = torch.zeros(len(tokens), device=device)
    for number in range(passes):
        random = rng.generator(seed, "code length", number)
        # Strata: pass j knows between j and j + 1 parts in `passes` of the tokens.
        known = int((number + float(torch.rand((), generator=random, dtype=torch.float64))) * length / passes)
        unknown = torch.randperm(length, generator=random)[known:].sort().values.to(device).expand(len(tokens), -1)
        dropping = torch.rand(length, generator=random).to(device).expand(len(tokens), -1)
        scores_of = logits_function(network, encoder_keep, repeat(dropping).__next__, classes)
        scores = scores_of(tokens.scatter(1, unknown, UNKNOWN), unknown, 1.0)
        likely = scores.float().log_softmax(dim=2).gather(2, tokens.gather(1, unknown)[..., None])[..., 0]
        total -= likely.mean(dim=1)
    return total * length / passes
