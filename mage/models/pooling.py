"""From an encoder's tokens to one vector per image (docs/method.md, Features; paper, section 4.3).

Letters: n images, l1 tokens with the class position first, d width, f width of the vectors.
"""

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Pool = Literal["mean", "class", "both", "last4"]
LAST_BLOCKS = 4
"""Blocks that last4 takes, as the linear classifiers of DINO do (arXiv 2104.14294, appendix)."""


def check_pool(pool: str, depth: int) -> None:
    """Raise ValueError for a word that is none of `Pool`, or one that needs more blocks than the encoder has."""
    if pool not in get_args(Pool):
        raise ValueError(f'pool must be "mean", "class", "both" or "last4", not {pool!r}')
    if pool == "last4" and depth < LAST_BLOCKS:
        raise ValueError(f"pool='last4' takes four blocks, and this encoder has {depth}: pool='both'")


def feature_width(width: int, pool: Pool) -> int:
    """Numbers of a feature vector of an encoder so wide."""
    return width * {"mean": 1, "class": 1, "both": 2, "last4": 2 * LAST_BLOCKS}[pool]


def features_of(
    x: Float[Tensor, "n l1 d"], blocks: Iterable[nn.Module], pool: Pool, norm: nn.LayerNorm | None
) -> Float[Tensor, "n f"]:
    """Input of the first block -> one vector per image, f = `feature_width`. Raises ValueError as `check_pool`."""
    blocks = list(blocks)
    check_pool(pool, len(blocks))
    if pool != "last4":
        for block in blocks:
            x = block(x)
        return pooled(x, pool, norm)
    vectors = []
    for number, block in enumerate(blocks, start=LAST_BLOCKS - len(blocks)):
        x = block(x)
        if number >= 0:
            vectors.append(pooled(x, "both", norm))
    return torch.cat(vectors, dim=1)


def pooled(
    x: Float[Tensor, "n l1 d"], pool: Literal["mean", "class", "both"], norm: nn.LayerNorm | None
) -> Float[Tensor, "n f"]:
    """One block's output as one vector per image, f = d or 2 d; `norm` is applied to the class token only."""
    average = x[:, 1:].float().mean(dim=1)
    mean = functional.layer_norm(average, average.shape[1:], eps=1e-6)
    if pool == "mean":
        return mean
    if norm is None:
        raise ValueError("this checkpoint pools by mean and has no norm for the class token; use pool='mean'")
    token: Tensor = norm(x)[:, 0].float()
    return token if pool == "class" else torch.cat([mean, token], dim=1)
