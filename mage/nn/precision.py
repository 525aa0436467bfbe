"""The precision of losses, sums and choices: float32 at least, whatever the network computes in."""

import torch
from torch import Tensor


def in_full(x: Tensor) -> Tensor:
    """bfloat16 as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
