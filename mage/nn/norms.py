"""Group norm for convolutional networks, without extra copies on a GPU.

Letters: n images, c channels, h w positions, g groups.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`; without gradients on a GPU it keeps bfloat16 and the channels-last layout.

    PyTorch's own converts to float32 under autocast and copies to the other layout, which together took longer than the
    convolutions of a tokenizer.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Same shape."""
        if x.is_cuda and x.dtype == torch.bfloat16 and not torch.is_grad_enabled():
            return lean_group_norm(x, self)
        return super().forward(x)


def lean_group_norm(x: Float[Tensor, "n c h w"], norm: nn.GroupNorm) -> Float[Tensor, "n c h w"]:
    """Statistics in float32, then one multiplication and addition; layout and precision are those of `x`."""
    count, channels, height, width = x.shape
    # Positions before channels: a view where the layout is channels-last.
    grouped = x.permute(0, 2, 3, 1).reshape(count, height * width, norm.num_groups, -1)
    mean = grouped.mean(dim=(1, 3), dtype=torch.float32)
    size = height * width * channels // norm.num_groups
    square = torch.linalg.vector_norm(grouped, dim=(1, 3), dtype=torch.float32).square() / size
    deviation = (square - mean.square()).clamp(min=0).add(norm.eps).sqrt()
    weight = norm.weight.float().view(norm.num_groups, -1) / deviation[..., None]
    bias = norm.bias.float().view(norm.num_groups, -1) - mean[..., None] * weight
    scale, shift = (part.reshape(count, channels, 1, 1).to(x.dtype) for part in (weight, bias))
    return torch.addcmul(shift, x, scale)
