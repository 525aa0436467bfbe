"""Dropout that does not wait for random numbers on a CPU."""

import math

import torch
from torch import Tensor, nn

BITS = 16
"""Random bits of an element's decision: its probability is kept to 1 part in 65,536."""


class Dropout(nn.Dropout):
    """`nn.Dropout`, whose masks a CPU draws four to a random number of 64 bits.

    PyTorch draws one number an element there, which is a third of a training step of ViT-B in bfloat16 and half of one
    of a small network. On other devices and in compiled code it is PyTorch's own.
    """

    def forward(self, input: Tensor) -> Tensor:  # PyTorch's name
        """Zeros a share `p` of the elements and scales the others so that the mean stays; the identity in eval mode."""
        dropped = round(self.p * 2**BITS)
        drawn_here = input.device.type == "cpu" and not torch.compiler.is_compiling()
        if not self.training or not drawn_here or dropped in (0, 2**BITS):
            output: Tensor = super().forward(input)
            return output
        return input * scaled_mask(input.shape, dropped, input.dtype)


def use_dropout(module: nn.Module, kind: type[nn.Dropout] = Dropout) -> None:
    """Make every dropout below `module` one of this kind."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                setattr(parent, name, kind(child.p))


def scaled_mask(shape: torch.Size, dropped: int, dtype: torch.dtype) -> Tensor:
    """A mask on the CPU: 0 for a share dropped / 65,536 of the elements, 1 / (1 - share) for the others."""
    size = math.prod(shape)
    numbers = torch.empty(-(-size * BITS // 64), dtype=torch.int64).random_(-(2**63), None)
    halves = numbers.view(torch.int16)[:size].view(shape)
    mask = torch.ge(halves, dropped - 2 ** (BITS - 1), out=torch.empty(shape, dtype=dtype))
    return mask.mul_(2**BITS / (2**BITS - dropped))
