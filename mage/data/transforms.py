"""Augmentation of single images: uint8 in, uint8 of a fixed size out, all randomness from the generator passed in.

Letters: c channels, H W pixels of the file, h w pixels of the model.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision.transforms import v2

from mage import images, rng
from mage.data.warp import warp

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""(image uint8 (c, H, W), generator) -> image uint8 (c, h, w)."""
MIRRORING = ("flip", "crop_flip", "warp_flip")
"""Augmentations that mirror about half of the images."""
WARPING = ("warp", "warp_flip")
"""Those that warp them."""


@dataclass(frozen=True)
class TransformConfig:
    """Cropping, resizing and augmentation of an image."""

    size: tuple[int, int] = (256, 256)
    """Height and width of the result, in pixels."""
    augmentation: Literal["none", "flip", "crop_flip", "crop", "shift", "warp", "warp_flip"] = "none"
    """none: scale to cover, crop the centre. flip: none plus random mirroring. crop: random resized crop.
    crop_flip: the paper's, crop plus random mirroring. shift: random shift by whole pixels, filled with black.
    warp: random rotation, stretch, slant and smooth distortion, for few images; warp_flip: and random mirroring."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest share of the image's area in a random crop."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest shape of a random crop, width over height."""
    crop_draws: Literal["until_inside", "once"] = "until_inside"
    """until_inside: area and shape of a random crop are redrawn, up to ten times, until it lies inside the image,
    as torchvision does. once: parts outside of the image are cut off, as in the public code of the linear probe.
    """
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Interpolation of a random crop: bilinear in pre-training, bicubic in the paper's linear probe."""
    max_shift: int = 2
    """Largest shift, in pixels."""
    max_rotation: float = 8.0
    """Largest angle of a warp, in degrees."""
    max_stretch: float = 0.1
    """Largest change of length in a warp, along and across each side, as a share."""
    distortion: float = 0.02
    """Standard deviation of the smooth displacement of a warp, as a share of each side."""
    resize: int = 0
    """Length of the shorter side before the centre crop; 0: the largest centre crop.
    The paper's evaluation is 292 for a size of 256."""
    rand_augment: str = ""
    """RandAugment as the last step, in timm's notation: rand-m9-mstd0.5-inc1 is the paper's fine-tuning; "": none."""

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"image size must be positive, not {self.size}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"crop scale needs 0 < low <= high <= 1, not {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"crop ratio needs 0 < low <= high, not {self.ratio}")
        if self.augmentation == "shift" and not 0 <= self.max_shift < min(self.size):
            raise ValueError(f"max_shift must be at least 0 and below the image size {self.size}, not {self.max_shift}")
        if not 0 <= self.max_rotation <= 180 or not 0 <= self.max_stretch < 0.5 or not 0 <= self.distortion < 0.5:
            raise ValueError(
                "a warp needs max_rotation in [0, 180] and max_stretch and distortion in [0, 0.5), not "
                f"{self.max_rotation}, {self.max_stretch} and {self.distortion}"
            )
        if self.resize and self.resize < max(self.size):
            raise ValueError(f"resize {self.resize} is too small to cut {self.size} from; try {max(self.size)} or 0")
        if self.rand_augment and not re.fullmatch(r"rand(-(m|n|mstd|inc|p)\d+(\.\d+)?)+", self.rand_augment):
            raise ValueError(f"rand_augment is written like rand-m9-mstd0.5-inc1, not {self.rand_augment!r}")


def evaluation_transform(size: tuple[int, int], resize: float = 292 / 256) -> TransformConfig:
    """Test transform of a probe or a fine-tuned classifier: scale the shorter side (bicubic), then crop the centre.

    resize: the shorter side over the longer one of `size`; the paper's is 292 for a size of 256. 1: the centre crop
    shows as much as it can.
    """
    return TransformConfig(size=size, resize=round(max(size) * resize) if resize > 1 else 0)


def cut_in_words(config: TransformConfig) -> str:
    """What a test transform cuts from images, for the protocol of a measure."""
    return f"centre crops of images scaled to {config.resize} pixels" if config.resize else "centre crops"


def build_transform(config: TransformConfig) -> Transform:
    """The function that a configuration describes."""
    return _Transform(config)


@dataclass(frozen=True)
class _Transform:
    """A class instead of a closure, so that it can be sent to worker processes."""

    config: TransformConfig

    @property
    def at_least(self) -> int:
        """See `needed_side`."""
        config, side = self.config, max(*self.config.size, self.config.resize)
        if config.augmentation in ("crop", "crop_flip"):  # the smallest crop, of the longest shape
            side = math.ceil(side / math.sqrt(config.scale[0] * min(config.ratio[0], 1 / config.ratio[1], 1)))
        return images.OVERSAMPLING * side

    def __call__(self, image: UInt8[Tensor, "c H W"], generator: torch.Generator) -> UInt8[Tensor, "c h w"]:
        config = self.config
        if config.augmentation in ("crop", "crop_flip"):
            image = _random_resized_crop(image, config, generator)
        else:
            image = _centre(image, config)
        if config.augmentation in MIRRORING and torch.rand((), generator=generator) < 0.5:
            image = image.flip(-1)
        if config.augmentation == "shift":
            image = _shift(image, config.max_shift, generator)
        if config.augmentation in WARPING:
            image = warp(
                image,
                generator,
                rotation=config.max_rotation,
                stretch=config.max_stretch,
                distortion=config.distortion,
            )
        if config.rand_augment:
            image = _rand_augment(image, config, generator)
        return image.contiguous()


def needed_side(transform: Transform) -> int:
    """Pixels that both sides of an image must have, so that reading it smaller makes no difference that matters.

    0 for a function of the user's, which gets images as they are.
    """
    return int(getattr(transform, "at_least", 0))


def describe(config: TransformConfig) -> str:
    """One line that describes every setting that changes the result: part of a token cache's key."""
    description = f"{config.augmentation} {config.size[0]}x{config.size[1]}"
    description += f" {config.rand_augment}" if config.rand_augment else ""
    if config.augmentation in ("crop", "crop_flip"):
        scale, ratio = config.scale, config.ratio
        description += f" scale {scale[0]:.9g}-{scale[1]:.9g} ratio {ratio[0]:.9g}-{ratio[1]:.9g}"
        description += " once" if config.crop_draws == "once" else ""
        return description if config.interpolation == "bilinear" else f"{description} {config.interpolation}"
    if config.resize:
        description += f" resize {config.resize}"
    if config.augmentation in WARPING:
        description += f" rotation {config.max_rotation:.9g} stretch {config.max_stretch:.9g}"
        return f"{description} distortion {config.distortion:.9g}"
    return f"{description} by {config.max_shift}" if config.augmentation == "shift" else description


def _centre(image: Tensor, config: TransformConfig) -> Tensor:
    if not config.resize:
        return images.fit(image, config.size)
    image = images.shorten(image, (config.resize, config.resize))
    image = v2.functional.resize(image, [config.resize], v2.InterpolationMode.BICUBIC, antialias=True)
    cut: Tensor = v2.functional.center_crop(image, list(config.size))
    return cut


def _random_resized_crop(image: Tensor, config: TransformConfig, generator: torch.Generator) -> Tensor:
    """Ten attempts to draw a crop inside the image, then the largest centre crop that fits.

    With `crop_draws="once"` the first draw is used, limited to the image's sides.
    """
    height, width = image.shape[-2:]
    draws = torch.rand(10, 4, generator=generator).tolist()
    low, high = math.log(config.ratio[0]), math.log(config.ratio[1])
    for area_draw, ratio_draw, top_draw, left_draw in draws:
        area = height * width * (config.scale[0] + area_draw * (config.scale[1] - config.scale[0]))
        ratio = math.exp(low + ratio_draw * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if config.crop_draws == "once":
            w, h = min(max(w, 1), width), min(max(h, 1), height)
        if 0 < w <= width and 0 < h <= height:
            top, left = int(top_draw * (height - h + 1)), int(left_draw * (width - w + 1))
            break
    else:
        w = min(width, round(height * config.ratio[1]))
        h = min(height, round(width / config.ratio[0]))
        top, left = (height - h) // 2, (width - w) // 2
    mode = v2.InterpolationMode(config.interpolation)
    cut: Tensor = v2.functional.resized_crop(image, top, left, h, w, list(config.size), mode, antialias=True)
    return cut


def _shift(image: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    right, down = torch.randint(-max_shift, max_shift + 1, (2,), generator=generator).tolist()
    height, width = image.shape[-2:]
    padded = v2.functional.pad(image, [max_shift])
    top, left = max_shift - down, max_shift - right
    shifted: Tensor = padded[:, top : top + height, left : left + width]
    return shifted


def _rand_augment(image: Tensor, config: TransformConfig, generator: torch.Generator) -> Tensor:
    if image.shape[0] not in (1, 3):
        raise ValueError(f"RandAugment takes grey or RGB images, not {len(image)} channels: set rand_augment to ''")
    seed = int(torch.randint(2**31, (), generator=generator))
    picture = v2.functional.to_pil_image(image.expand(3, -1, -1))
    with rng.global_generators(seed):
        varied = v2.functional.pil_to_tensor(_policy(config.rand_augment, min(config.size))(picture))
    result: Tensor = varied if len(image) == 3 else varied.float().mean(dim=0, keepdim=True).round().to(torch.uint8)
    return result.to(image.device)


@lru_cache(maxsize=4)
def _policy(policy: str, side: int) -> Any:
    """timm's RandAugment, bicubic, with shifts in proportion to the image, and ImageNet's mean as the fill colour."""
    settings = {"translate_const": int(side * 0.45), "img_mean": (124, 116, 104)}
    return rand_augment_transform(policy, settings | {"interpolation": Image.Resampling.BICUBIC})
