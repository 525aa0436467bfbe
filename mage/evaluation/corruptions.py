"""Fifteen common corruptions in five severities, made on the fly (after Hendrycks and Dietterich 2019).

The kinds and strengths are those of ImageNet-C for large images and of CIFAR-10-C for small ones; lengths are shares of
the image's side. The pictures are not the official ones, so numbers made with them are compared among themselves only;
`mage.evaluation.robustness` also reads the official folders.

Every function takes an image in [0, 1], one strength and a generator; the result is clamped by `corrupt`.

Letters: c channels, h w pixels.
"""

import io
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as vision

SEVERITIES = (1, 2, 3, 4, 5)
SMALL_SIDE = 64
"""Images up to this many pixels per side get the strengths of CIFAR-10-C."""
REFERENCE_SIDE = 224
"""Lengths in the table are pixels of an image of this size."""

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]


def corrupt(
    image: Float[Tensor, "c h w"], kind: str, severity: int, generator: torch.Generator
) -> Float[Tensor, "c h w"]:
    """One corrupted image in [0, 1]. Raises ValueError for an unknown kind or severity."""
    if kind not in KINDS or severity not in SEVERITIES:
        raise ValueError(f"there is no corruption {kind!r} of severity {severity}; kinds are {', '.join(KINDS)}")
    one = KINDS[kind]
    strengths = one.small if min(image.shape[-2:]) <= SMALL_SIDE else one.large
    return one.function(image, strengths[severity - 1], generator).clamp(0, 1)


def _gaussian_noise(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return x + strength * torch.randn(x.shape, generator=generator)


def _shot_noise(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """strength: 1 over the photons of a white pixel."""
    return torch.poisson(x / strength, generator=generator) * strength


def _impulse_noise(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    draw = torch.rand(x.shape, generator=generator)
    return torch.where(draw < strength, (draw < strength / 2).to(x), x)


def _defocus_blur(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """strength: radius of the disk."""
    radius = strength * _unit(x)
    reach = math.ceil(radius)
    place = torch.arange(-reach, reach + 1.0)
    distance = (place[:, None].square() + place.square()).sqrt()
    return _filter(x, (radius + 0.5 - distance).clamp(0, 1))


def _glass_blur(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Pixels change places with others up to `strength` away, twice."""
    x = _gaussian(x, 0.25 * strength * _unit(x))
    for _ in range(2):
        x = _warp(x, strength * _unit(x) * (2 * torch.rand(*x.shape[-2:], 2, generator=generator) - 1))
    return _gaussian(x, 0.25 * strength * _unit(x))


def _motion_blur(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """strength: length of the movement; its direction is drawn."""
    angle = (float(torch.rand((), generator=generator)) - 0.5) * math.pi / 2
    return _smear(x, strength * _unit(x), angle)


def _zoom_blur(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """strength: the largest zoom beyond 1."""
    factors = torch.linspace(1, 1 + strength, 12)
    theta = torch.zeros(len(factors), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / factors
    grid = functional.affine_grid(theta, [len(factors), *x.shape], align_corners=False)
    return _sample(x.expand(len(factors), -1, -1, -1), grid).mean(dim=0)


def _snow(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Flakes that fall at a slant, and a paler scene behind them; strength: share of the sky that is flakes."""
    height, width = x.shape[-2:]
    cell = max(1.0, 2.5 * _unit(x))
    coarse = torch.rand(1, math.ceil(height / cell), math.ceil(width / cell), generator=generator)
    flakes = ((coarse - 1 + 0.6 * strength) / (0.6 * strength)).clamp(0, 1)
    angle = math.pi / 2 + (float(torch.rand((), generator=generator)) - 0.5) * math.pi / 3
    layer = _smear(_resize(flakes, (height, width)), 10 * _unit(x), angle)
    pale = (x.mean(dim=0, keepdim=True) * 1.5 + 0.5).clamp(0, 1)
    return torch.lerp(x, torch.maximum(x, pale), 0.6 * strength) + 1.6 * layer


def _frost(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Ridges of a fractal are ice; strength: how thick. Official frost is photographs, ours is made."""
    field = _plasma(x.shape[-2:], 1.5, generator)
    ridges = (1 - (field - 0.5).abs() * 4).clamp(0, 1).pow(2)
    ice = ridges * (0.6 + 0.4 * torch.rand(field.shape, generator=generator))
    tint = torch.tensor([0.9, 0.97, 1.0]).view(3, 1, 1) if len(x) == 3 else x.new_ones(1, 1, 1)
    return x * (1 - 0.45 * strength) + strength * ice * tint


def _fog(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    bright = float(x.max())
    return (x + strength * _plasma(x.shape[-2:], 2.0, generator)) * bright / (bright + strength + 1e-6)


def _brightness(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """The value of HSV grows by `strength`; hue and saturation stay."""
    value = x.max(dim=0, keepdim=True).values
    brighter = (value + strength).clamp(max=1)
    return torch.where(value > 0, x * brighter / value.clamp(min=1e-6), brighter)


def _contrast(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """strength: share of the contrast that is lost."""
    return torch.lerp(x, x.mean(dim=(1, 2), keepdim=True).expand_as(x), strength)


def _elastic(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A smooth random deformation of `strength` pixels on average."""
    unit = _unit(x)
    field = _gaussian(2 * torch.rand(2, *x.shape[-2:], generator=generator) - 1, max(0.8, 9 * unit))
    return _warp(x, (field / field.square().mean().sqrt() * strength * unit).permute(1, 2, 0))


def _pixelate(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Cells of about `strength` pixels per side become their mean."""
    rows, columns = (_cell_means(side, strength).to(x) for side in x.shape[-2:])
    return rows @ x @ columns.T


def _jpeg(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """strength: 100 less the quality. Bands beyond RGB are compressed one by one."""
    quality = round(100 - strength)
    pixels = (x * 255).round().to(torch.uint8)
    parts = [pixels] if len(x) in (1, 3) else list(pixels.split(1))
    found = []
    for part in parts:
        buffer = io.BytesIO()
        vision.to_pil_image(part).save(buffer, format="JPEG", quality=quality)
        with Image.open(buffer) as image:
            found.append(vision.pil_to_tensor(image))
    return torch.cat(found).to(x) / 255


class Kind(NamedTuple):
    """A corruption with its strengths for the five severities."""

    function: Corruption
    large: tuple[float, ...]
    """Of an image of 224 pixels, as ImageNet-C."""
    small: tuple[float, ...]
    """Of an image of 32 pixels, as CIFAR-10-C; lengths in pixels of 224 too."""


KINDS: dict[str, Kind] = {
    "gaussian_noise": Kind(_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Kind(
        _shot_noise, (1 / 60, 1 / 25, 1 / 12, 1 / 5, 1 / 3), (1 / 500, 1 / 250, 1 / 100, 1 / 75, 1 / 50)
    ),
    "impulse_noise": Kind(_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Kind(_defocus_blur, (3, 4, 6, 8, 10), (4, 5, 6, 8, 10)),
    "glass_blur": Kind(_glass_blur, (1.5, 2, 3, 4, 5), (2, 3, 4, 5, 6)),
    "motion_blur": Kind(_motion_blur, (10, 15, 20, 25, 32), (12, 18, 25, 32, 40)),
    "zoom_blur": Kind(_zoom_blur, (0.11, 0.16, 0.21, 0.26, 0.33), (0.06, 0.11, 0.16, 0.21, 0.26)),
    "snow": Kind(_snow, (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.08, 0.12, 0.17, 0.22)),
    "frost": Kind(_frost, (0.35, 0.5, 0.65, 0.75, 0.85), (0.2, 0.3, 0.4, 0.5, 0.6)),
    "fog": Kind(_fog, (1.5, 2.0, 2.5, 3.0, 3.5), (0.2, 0.5, 0.75, 1.0, 1.5)),
    "brightness": Kind(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Kind(_contrast, (0.6, 0.7, 0.8, 0.9, 0.95), (0.25, 0.5, 0.6, 0.7, 0.85)),
    "elastic": Kind(_elastic, (2, 3, 4, 5, 6), (2, 3, 4, 5, 6)),
    "pixelate": Kind(_pixelate, (1 / 0.6, 2, 2.5, 1 / 0.3, 4), (1.15, 1.33, 1.6, 2, 2.67)),
    "jpeg": Kind(_jpeg, (75, 82, 85, 90, 93), (20, 35, 42, 50, 60)),
}
"""Name -> corruption; in the order of the paper: noise, blur, weather, digital."""
OFFICIAL_NAMES = {"elastic": "elastic_transform", "jpeg": "jpeg_compression"}
"""Kinds whose official folder or file has another name."""


def _unit(x: Tensor) -> float:
    """Pixels of this image per pixel of the table."""
    return min(x.shape[-2:]) / REFERENCE_SIDE


def _filter(x: Tensor, kernel: Float[Tensor, "k k"]) -> Tensor:
    """Filter each channel, the edge continued by its mirror image."""
    kernel = kernel / kernel.sum()
    reach = kernel.shape[0] // 2
    mode = "reflect" if reach < min(x.shape[-2:]) else "replicate"
    padded = functional.pad(x[:, None], [reach] * 4, mode=mode)
    return functional.conv2d(padded, kernel[None, None].to(x))[:, 0]


def _gaussian(x: Tensor, sigma: float) -> Tensor:
    reach = max(1, math.ceil(3 * sigma))
    row = (-0.5 * (torch.arange(-reach, reach + 1.0) / max(sigma, 1e-3)).square()).exp()
    return _filter(x, row[:, None] * row)


def _smear(x: Tensor, length: float, angle: float) -> Tensor:
    """Blur along a line of `length` pixels."""
    reach = math.ceil(length / 2) + 1
    steps = torch.linspace(-length / 2, length / 2, max(3, math.ceil(3 * length)))
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1)
    ys, xs = steps * math.sin(angle) + reach, steps * math.cos(angle) + reach
    for dy in (0, 1):  # each point of the line is shared among its four pixels
        for dx in (0, 1):
            share = (1 - (ys - ys.floor() - dy).abs()) * (1 - (xs - xs.floor() - dx).abs())
            kernel.index_put_(((ys.floor() + dy).long(), (xs.floor() + dx).long()), share, accumulate=True)
    return _filter(x, kernel)


def _warp(x: Tensor, offset: Float[Tensor, "h w 2"]) -> Tensor:
    """Take each pixel from `offset` (x, y) pixels away."""
    size = torch.tensor([x.shape[-1], x.shape[-2]])
    identity = functional.affine_grid(torch.eye(2, 3)[None], [1, *x.shape], align_corners=False)
    return _sample(x[None], identity + 2 * offset / size)[0]


def _sample(x: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(x[None], size, mode="bicubic", align_corners=False)[0].clamp(0, 1)


def _cell_means(side: int, cell: float) -> Float[Tensor, "s s"]:
    """The matrix that replaces each number of a row by the mean of its cell."""
    number = (torch.arange(side) / cell).floor()
    same = (number[:, None] == number).float()
    return same / same.sum(dim=1, keepdim=True)


def _plasma(size: tuple[int, ...], decay: float, generator: torch.Generator) -> Float[Tensor, "1 h w"]:
    """Fractal noise in [0, 1]: octaves of random grids, each finer and weaker than the one before."""
    height, width = size
    total, amplitude, cells = torch.zeros(1, height, width), 1.0, 2
    while cells <= max(size):
        grid = torch.rand(1, 1, cells + 1, cells + 1, generator=generator)
        total += amplitude * functional.interpolate(grid, (height, width), mode="bicubic", align_corners=True)[0]
        amplitude, cells = amplitude / decay, cells * 2
    low, high = total.min(), total.max()
    return (total - low) / (high - low).clamp(min=1e-6)
