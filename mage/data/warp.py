"""Warping: a small random rotation, stretch, slant and smooth distortion of an image.

Changes of shape that leave the meaning of handwriting, cells or leaves as it is; for few images (elastic distortions:
Simard et al., "Best practices for convolutional neural networks applied to visual document analysis", 2003).
"""

import math

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

KNOTS = 4
"""Random displacements along each side of the image; those between are interpolated."""


def warp(
    image: UInt8[Tensor, "c h w"], generator: torch.Generator, *, rotation: float, stretch: float, distortion: float
) -> UInt8[Tensor, "c h w"]:
    """The warped image; places outside of the image continue its border.

    rotation: largest angle, in degrees. stretch: largest change of length along and across each side, as a share.
    distortion: standard deviation of the smooth displacement, as a share of each side.
    """
    height, width = image.shape[-2:]
    angle = math.radians(rotation) * (2 * float(torch.rand((), generator=generator)) - 1)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ (torch.eye(2) + stretch * (2 * torch.rand(2, 2, generator=generator) - 1))
    linear *= torch.tensor([[1.0, height / width], [width / height, 1.0]])  # coordinates are shares of a side
    linear = linear.to(image.device)  # the same numbers on every device
    grid = functional.affine_grid(
        functional.pad(linear, [0, 1]).unsqueeze(0), [1, len(image), height, width], align_corners=False
    )
    knots = 2 * distortion * torch.randn(1, 2, KNOTS, KNOTS, generator=generator).to(image.device)  # a side is 2 wide
    smooth = functional.interpolate(knots, (height, width), mode="bicubic", align_corners=True)
    warped = functional.grid_sample(
        image.float().unsqueeze(0),
        grid + smooth.permute(0, 2, 3, 1),
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )
    return warped[0].round().clamp(0, 255).to(torch.uint8)
