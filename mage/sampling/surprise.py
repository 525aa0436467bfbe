"""How unlikely the network finds each token of a complete grid, given the others.

The tokens are divided into parts. In each pass one part is masked and predicted from the rest, so that every token is
scored exactly once, by a network that did not see it. The score is -ln p(token | tokens of the other parts), in nats:
the loss of training (section 3.2), per token and without label smoothing. Their sum is a pseudo-likelihood: tokens of
one part do not see each other, so it is no likelihood of the grid, and the average over several divisions is steadier.

The parts of a division are consecutive pieces of the Halton sequence from a random position, so each is spread evenly
over the grid. All grids have the same divisions: the score of an image depends neither on its batch nor on its place.

An image of little content has little surprise, however strange it is. What the network expected tells: the mean of
-ln q over all codes, where q is its prediction, by how probable it holds them. Without label smoothing that is q, and
the mean its entropy; a training with smoothing e teaches q = (1 - e) p + e / c, and p is what the network holds. On
images like those of the training, surprise and expectation are equal on average; their difference is what typicality
means (Nalisnick et al. 2019, arXiv 1906.02994), token by token.

Letters: n images, l tokens, c codes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import rng
from mage.masking import Mask
from mage.models.mage import MAGETransformer
from mage.nn.grids import area, written
from mage.sampling.orders import by_halton


class Surprise(NamedTuple):
    """Of each token, in nats."""

    found: Float[Tensor, "n l"]
    """-ln p of the token that is there."""
    expected: Float[Tensor, "n l"]
    """The mean of -ln p over all codes, by how probable the network holds them."""


def check_parts(grid: tuple[int, ...], parts: int, draws: int) -> None:
    """Raise ValueError unless the grid can be divided into `parts`, `draws` times."""
    if not 2 <= parts <= area(grid):
        raise ValueError(
            f"parts must lie between 2 and the {area(grid)} tokens of a grid of {written(grid)}, not {parts}: "
            "each pass masks one part and sees the others"
        )
    if draws < 1:
        raise ValueError(f"draws, the number of divisions to average over, must be at least 1, not {draws}")


def divide(grid: tuple[int, ...], parts: int, *, seed: int, draw: int) -> Int[Tensor, " l"]:
    """The part of each token, from 0 to parts - 1, row by row; sizes of parts differ by at most one token."""
    order = by_halton(grid, [rng.generator(seed, "surprise", draw)])[0]
    return order * parts // area(grid)


def surprise(
    network: MAGETransformer,
    tokens: Int[Tensor, "n l"],
    *,
    parts: int,
    draws: int,
    seed: int,
    classes: Int[Tensor, " n"] | None = None,
) -> Surprise:
    """-ln p of each token given those of the other parts, and its expected value, averaged over `draws` divisions.

    classes: the class of each grid, -1 = none. A network with a decoder drops the masked tokens before its encoder, as
    in training; one without sees mask tokens in their places. Raises ValueError as `check_parts`.
    """
    check_parts(network.grid, parts, draws)
    found, expected = torch.zeros(2, *tokens.shape, device=tokens.device)
    for draw in range(draws):
        part_of = divide(network.grid, parts, seed=seed, draw=draw).to(tokens.device)
        for part in range(parts):
            places = (part_of == part).nonzero()[:, 0].expand(len(tokens), -1)
            masked = (part_of == part).expand(len(tokens), -1)
            mask = Mask(masked, masked) if network.config.decoder_depth else Mask.nothing_dropped(masked)
            scores = network(tokens, mask, classes).code_logits_at(places).float().log_softmax(dim=2)
            chosen = scores.gather(2, tokens.gather(1, places)[..., None])[..., 0]
            found.scatter_add_(1, places, -chosen)
            held = unsmoothed(scores.exp(), network.config.label_smoothing)
            expected.scatter_add_(1, places, -(held * scores).sum(dim=2))
    return Surprise(found / draws, expected / draws)


def unsmoothed(predicted: Float[Tensor, "... c"], smoothing: float) -> Float[Tensor, "... c"]:
    """The probabilities that a training with label smoothing turns into `predicted`; what lies below its floor is 0."""
    above = (predicted - smoothing / predicted.shape[-1]).clamp(min=0)
    return above / above.sum(dim=-1, keepdim=True)
