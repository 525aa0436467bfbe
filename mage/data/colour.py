"""SimCLR's colour jitter and random greyscale, for whole batches with separate random factors per image.

It works on batches instead of single images: so it is cheap and runs on the network's device. Brightness, contrast,
saturation and hue change in this order (SimCLR: in random order).

Letters: n images, H W pixels.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

TO_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
"""Rows: luma and two chroma axes; a change of hue is a rotation in their plane."""


@dataclass(frozen=True)
class ColourConfig:
    """Strength of the jitter; the defaults are SimCLR's for CIFAR-10 (strength 0.5)."""

    probability: float = 0.8
    """Share of the images whose colours are changed."""
    brightness: float = 0.4
    """Largest relative change of brightness."""
    contrast: float = 0.4
    """Largest relative change of contrast."""
    saturation: float = 0.4
    """Largest relative change of saturation."""
    hue: float = 0.1
    """Largest rotation of the hue, as a share of a full turn."""
    grey: float = 0.2
    """Share of the images that become grey."""

    def __post_init__(self) -> None:
        if not all(0 <= value <= 1 for value in vars(self).values()):
            raise ValueError(f"colour settings are shares from 0 to 1, not {vars(self)}")


def colour_draws(count: int, generator: torch.Generator) -> Float[Tensor, "6 n"]:
    """Random numbers for `count` images, uniform in [0, 1), on the CPU."""
    return torch.rand(6, count, generator=generator)


def colour_jitter(
    images: Float[Tensor, "n 3 H W"], config: ColourConfig, draws: Float[Tensor, "6 n"]
) -> Float[Tensor, "n 3 H W"]:
    """Images in [0, 1] with changed colours, in [0, 1]; draws: of `colour_draws`.

    Computed in the images' own precision, also under autocast: a bfloat16 product would shift colours.
    """
    with torch.autocast(images.device.type, enabled=False):
        return _jitter(images, config, draws[..., None, None, None].to(images.device, images.dtype))


def _jitter(images: Tensor, config: ColourConfig, draws: Tensor) -> Tensor:
    changed, spread = draws[0] < config.probability, draws[1:5] * 2 - 1
    yiq = images.new_tensor(TO_YIQ)
    luma = yiq[0].view(1, 3, 1, 1)
    x = (images * (1 + config.brightness * spread[0])).clamp(0, 1)
    mean = (x * luma).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    x = torch.lerp(mean, x, 1 + config.contrast * spread[1]).clamp(0, 1)
    angle = (2 * math.pi * config.hue * spread[3]).view(-1)
    rotated = turn_hue(x, angle)
    grey = (rotated * luma).sum(dim=1, keepdim=True)
    x = torch.lerp(grey, rotated, 1 + config.saturation * spread[2]).clamp(0, 1)
    x = torch.where(changed, x, images)
    return torch.where(draws[5] < config.grey, (x * luma).sum(dim=1, keepdim=True).expand_as(x), x)


def turn_hue(images: Float[Tensor, "n 3 H W"], angle: Float[Tensor, " n"]) -> Float[Tensor, "n 3 H W"]:
    """Rotate each image's colours around the grey axis, at constant brightness; colours may leave [0, 1]."""
    yiq = images.new_tensor(TO_YIQ)
    turn = images.new_zeros(len(images), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 2, 1] = angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    matrix = torch.linalg.inv(yiq.float()).to(images.dtype) @ turn @ yiq
    return torch.einsum("nij,njhw->nihw", matrix, images)
