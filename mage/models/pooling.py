"""From an encoder's tokens to one vector per image (docs/method.md, Features; paper, section 4.3).

Letters: n images, l1 tokens with the class position first, d width, f width of the vectors.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Pool = Literal["mean", "class", "both"]


def pooled(x: Float[Tensor, "n l1 d"], pool: Pool, norm: nn.LayerNorm | None) -> Float[Tensor, "n f"]:
    """The last block's output as one vector per image, f = d or 2 d; `norm` is applied to the class token only."""
    if pool not in get_args(Pool):
        raise ValueError(f'pool must be "mean", "class" or "both", not {pool!r}')
    average = x[:, 1:].float().mean(dim=1)
    mean = functional.layer_norm(average, average.shape[1:], eps=1e-6)
    if pool == "mean":
        return mean
    if norm is None:
        raise ValueError("this checkpoint pools by mean and has no norm for the class token; use pool='mean'")
    token: Tensor = norm(x)[:, 0].float()
    return token if pool == "class" else torch.cat([mean, token], dim=1)
