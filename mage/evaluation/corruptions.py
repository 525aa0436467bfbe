"""Fifteen common corruptions in five severities, computed on the fly (after Hendrycks and Dietterich 2019).

Kinds, formulas and constants are those of ImageNet-C for large images and of CIFAR-10-C for small ones; lengths are
pixels of an image of 224 or 32, scaled with the image. Kinds that are computed differently are in `OURS`, and `ours`
names them for the protocol of a metric. The images are not the official ones, which are JPEG files with other random
numbers: `mage.evaluation.robustness` also reads the official folders.

Every function takes an image in [0, 1], the strengths of a severity, the number of pixels of this image per pixel of
the table, and a generator; the result is clamped by `corrupt`.

Letters: c channels, h w pixels.
"""

import io
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from mage.evaluation.distortions import (
    disk,
    displaced,
    filtered,
    gaussian,
    motion,
    plasma,
    sheared,
    shuffled,
    zoomed,
)

SEVERITIES = (1, 2, 3, 4, 5)
SMALL_SIDE = 64
"""Images up to this many pixels per side get the strengths of CIFAR-10-C."""
OFFICIAL_SIDES = {"large": 224, "small": 32}
"""Sides of the images that lengths in the tables refer to, in pixels."""
Strength = tuple[float, ...]
Corruption = Callable[[Tensor, Strength, float, torch.Generator], Tensor]


def corrupt(
    image: Float[Tensor, "c h w"], kind: str, severity: int, generator: torch.Generator
) -> Float[Tensor, "c h w"]:
    """One corrupted image in [0, 1]. Raises ValueError for an unknown kind or severity."""
    if kind not in KINDS or severity not in SEVERITIES:
        raise ValueError(f"there is no corruption {kind!r} of severity {severity}; kinds are {', '.join(KINDS)}")
    corruption, side = KINDS[kind], min(image.shape[-2:])
    table = "small" if side <= SMALL_SIDE else "large"
    strength: Strength = getattr(corruption, table)[severity - 1]
    return corruption.function(image, strength, side / OFFICIAL_SIDES[table], generator).clamp(0, 1)


def ours(kinds: Iterable[str]) -> str:
    """Those of the kinds that are computed differently from the official ones, for a protocol; "" if none."""
    named = [f"{kind} ({OURS[kind]})" for kind in kinds if kind in OURS]
    return f"ours: {', '.join(named)}" if named else ""


def _gaussian_noise(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: deviation."""
    return x + strength[0] * torch.randn(x.shape, generator=generator)


def _shot_noise(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: photons of a white pixel."""
    return torch.poisson(x * strength[0], generator=generator) / strength[0]


def _impulse_noise(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: share of the numbers that become 0 or 1."""
    draw = torch.rand(x.shape, generator=generator)
    return torch.where(draw < strength[0], (draw < strength[0] / 2).to(x), x)


def _defocus_blur(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: radius of the disk, deviation of its softening."""
    radius, blur = strength
    return filtered(x, disk(radius * unit, blur * unit))


def _glass_blur(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: deviation of the blur before and after, distance and number of the shuffles."""
    sigma, delta, times = strength
    reach = max(1, round(delta * unit))
    x = gaussian(x, sigma * unit, truncate=4, edge="nearest")
    for _ in range(int(times)):
        x = shuffled(x, torch.randint(-reach, reach, (2, *x.shape[-2:]), generator=generator), reach)
    return gaussian(x, sigma * unit, truncate=4, edge="nearest")


def _motion_blur(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: radius and deviation; the direction is drawn."""
    radius, sigma = strength
    return motion(x, radius * unit, sigma * unit, _between(-45, 45, generator))


def _zoom_blur(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: end and step of the zoom factors, which start at 1, as arguments of np.arange."""
    factors = np.arange(1, *strength).tolist()
    return (x + torch.stack([zoomed(x, factor) for factor in factors]).sum(dim=0)) / (len(factors) + 1)


def _snow(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """Slanted flakes in front of a paler image.

    strength: mean and deviation of the noise, zoom of the flakes, threshold of the noise for a flake, radius and
    deviation of their motion, and share of the original colour.
    """
    mean, deviation, zoom, threshold, radius, sigma, left = strength
    flakes = mean + deviation * torch.randn(1, *x.shape[-2:], generator=generator)
    flakes = zoomed(flakes, max(1.0, zoom * unit))
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    layer = motion(flakes, radius * unit, sigma * unit, _between(-135, -45, generator))
    shares = torch.tensor([0.299, 0.587, 0.114]) if len(x) == 3 else torch.full((len(x),), 1 / len(x))
    grey = (shares.view(-1, 1, 1).to(x) * x).sum(dim=0, keepdim=True)
    return torch.lerp(torch.maximum(x, grey * 1.5 + 0.5), x, left) + layer + layer.rot90(2, (1, 2))


def _frost(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """Ice from the ridges of a fractal; strength: weights of the image and of the ice."""
    seen, thick = strength
    ridges = (1 - (_clouds(x, 1.5, generator) - 0.5).abs() * 2).clamp(0, 1)
    ice = ridges * (0.6 + 0.4 * torch.rand(ridges.shape, generator=generator))
    tint = torch.tensor([0.9, 0.97, 1.0]).view(3, 1, 1) if len(x) == 3 else x.new_ones(1, 1, 1)
    return x * seen + thick * ice * tint


def _fog(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: thickness, and decay of the fractal from coarse to fine."""
    thick, decay = strength
    bright = float(x.max())
    return (x + thick * _clouds(x, decay, generator)) * bright / (bright + thick)


def _brightness(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """Add the strength to the value of HSV; hue and saturation are unchanged."""
    value = x.max(dim=0, keepdim=True).values
    brighter = (value + strength[0]).clamp(max=1)
    return torch.where(value > 0, x * brighter / value.clamp(min=1e-6), brighter)


def _contrast(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: share of the contrast that is left."""
    return torch.lerp(x.mean(dim=(1, 2), keepdim=True).expand_as(x), x, strength[0])


def _elastic(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """An affine map and a smooth displacement.

    strength: size and smoothness (deviation) of the displacement, and largest shift of the corners, in pixels.
    """
    alpha, sigma, corner = (value * unit for value in strength)
    x = sheared(x, corner * (2 * torch.rand(3, 2, generator=generator) - 1))
    field = 2 * torch.rand(2, *x.shape[-2:], generator=generator) - 1
    return displaced(x, alpha * gaussian(field, sigma, truncate=3, edge="mirror"))


def _pixelate(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: side of the small image over that of the image."""

    def shrink(image: Image.Image) -> Image.Image:
        small = [max(1, int(side * strength[0])) for side in image.size]
        return image.resize((small[0], small[1]), Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)

    return _as_pictures(x, shrink)


def _jpeg(x: Tensor, strength: Strength, unit: float, generator: torch.Generator) -> Tensor:
    """strength: quality."""

    def compress(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=int(strength[0]))
        return Image.open(buffer)

    return _as_pictures(x, compress)


class Kind(NamedTuple):
    """A corruption with its strengths for the five severities."""

    function: Corruption
    large: tuple[Strength, ...]
    """Strengths for images of 224 pixels, as in ImageNet-C."""
    small: tuple[Strength, ...]
    """Strengths for images of 32 pixels, as in CIFAR-10-C."""


def _each(*values: float) -> tuple[Strength, ...]:
    return tuple((value,) for value in values)


KINDS: dict[str, Kind] = {
    "gaussian_noise": Kind(_gaussian_noise, _each(0.08, 0.12, 0.18, 0.26, 0.38), _each(0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Kind(_shot_noise, _each(60, 25, 12, 5, 3), _each(500, 250, 100, 75, 50)),
    "impulse_noise": Kind(_impulse_noise, _each(0.03, 0.06, 0.09, 0.17, 0.27), _each(0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Kind(
        _defocus_blur,
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    "glass_blur": Kind(
        _glass_blur,
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    "motion_blur": Kind(
        _motion_blur,
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    ),
    "zoom_blur": Kind(
        _zoom_blur,
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    ),
    "snow": Kind(
        _snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": Kind(
        _frost,
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    ),
    "fog": Kind(
        _fog,
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    ),
    "brightness": Kind(_brightness, _each(0.1, 0.2, 0.3, 0.4, 0.5), _each(0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Kind(_contrast, _each(0.4, 0.3, 0.2, 0.1, 0.05), _each(0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic": Kind(  # the first two of ImageNet-C move the whole image and are its strongest; 244 is the public code's
        _elastic,
        tuple(
            (244 * alpha, 244 * sigma, 244 * corner)
            for alpha, sigma, corner in (
                (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)
            )
        ),
        tuple(
            (32 * alpha, 32 * sigma, 32 * corner)
            for alpha, sigma, corner in (
                (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)
            )
        ),
    ),
    "pixelate": Kind(_pixelate, _each(0.6, 0.5, 0.4, 0.3, 0.25), _each(0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg": Kind(_jpeg, _each(25, 18, 15, 10, 7), _each(80, 65, 58, 50, 40)),
}  # fmt: skip
"""Name -> corruption; in the order of the paper: noise, blur, weather, digital."""
OURS = {
    "motion_blur": "ImageMagick's by formula",
    "snow": "its motion by formula",
    "frost": "made, not photographed",
}
"""Kinds that are computed differently from the official ones, with the difference."""
OFFICIAL_NAMES = {"elastic": "elastic_transform", "jpeg": "jpeg_compression"}
"""Kinds whose official folder or file has another name."""


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _clouds(x: Tensor, decay: float, generator: torch.Generator) -> Float[Tensor, "1 h w"]:
    """Fractal noise of the image's size, cropped from a square with a power of two as side."""
    height, width = x.shape[-2:]
    side = 2 ** math.ceil(math.log2(max(height, width, 2)))
    return plasma(side, decay, generator)[None, :height, :width]


def _as_pictures(x: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Apply a function of 8-bit PIL images; with other channels than grey or RGB, to each channel."""
    pixels = (x * 255).round().to(torch.uint8)
    parts = [pixels] if len(x) in (1, 3) else list(pixels.split(1))
    return torch.cat([vision.pil_to_tensor(change(vision.to_pil_image(part))) for part in parts]).to(x) / 255
