"""Stand-in."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Images = Any
Masks = Any


@dataclass(frozen=True)
class ImageBatch:
    pixels: Tensor
    single: bool


@dataclass(frozen=True)
class ImageTransform:
    size: tuple[int, int]
    channels: int


def as_images(images: Any, *, size: tuple[int, int] | None, channels: int, resize: bool) -> ImageBatch:
    single = images.ndim == 3
    return ImageBatch(images[None] if single else images, single)


def as_mask(mask: Any, size: tuple[int, int]) -> Tensor:
    return torch.as_tensor(mask)
