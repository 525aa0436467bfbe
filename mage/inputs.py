"""Converts the images and masks that users pass in to tensors, and checks them.

Accepted are float tensors in [0, 1] and uint8 tensors (both channels first), numpy arrays in any layout, PIL images,
paths of files, a folder, and lists that mix them.
Letters: n images, m masks, c channels, H W pixels.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from PIL import Image
from torch import Tensor

from mage import images as files
from mage.images import (
    OVERSAMPLING,
    channels_first,
    check_range,
    fit,
    from_pil,
    layouts,
    levels,
    load_image,
    with_channels,
)
from mage.pil_modes import SUFFIXES

Picture = Tensor | np.ndarray | Image.Image | str | os.PathLike[str]
Images = Picture | Sequence[Picture]
"""One image or several: tensors, numpy arrays, PIL images, paths of files, the path of a folder, or a list of these."""
Masks = Images
"""One mask or several, True, 1 or white where an image is redrawn; in the same forms, except for folders."""
KINDS = "a tensor, a numpy array, a PIL image, a path, or a list of these"


@dataclass(frozen=True)
class ImageBatch:
    """Images in the networks' input format."""

    pixels: Float[Tensor, "n c H W"]
    """float32 in [0, 1]."""
    single: bool
    """The input was one image without a list or batch dimension, so that the output must be one, too."""


@dataclass(frozen=True)
class ImageTransform:
    """Transform for a DataLoader, from an image to the model's input: scale to cover, crop the centre."""

    size: tuple[int, int]
    """Height and width of the result, in pixels."""
    channels: int

    def __call__(self, image: Any) -> Float[Tensor, "c H W"]:
        """A PIL image, a path, an array or a tensor -> float32 in [0, 1]. Raises ValueError."""
        _refuse_folder(image)
        pixels = _pixels(image, self.channels, None, OVERSAMPLING * max(self.size))
        if pixels.ndim != 3:
            raise ValueError(f"a transform takes one image at a time, not a batch of shape {tuple(pixels.shape)}")
        return _as_float(fit(pixels, self.size))


def as_images(images: Any, *, size: tuple[int, int] | None, channels: int, resize: bool) -> ImageBatch:
    """Images in any form -> one batch (n, c, H, W) of float32 in [0, 1]; tensors stay on their device.

    size: height and width of the result, None for any. resize: files, PIL images and arrays of another size are scaled
    to cover it and cropped at the centre; tensors of another size are refused. Without resize, images may be larger
    than `size` and keep their size, which must be the same for all. Grey is converted to RGB and RGB to grey.
    Raises ValueError for values outside [0, 1], NaN, other types, sizes, layouts or numbers of channels, or no images.
    """
    if isinstance(images, list | tuple):
        parts = [part for place, item in enumerate(images) for part in _parts(item, channels, size, resize, place)]
        single = False
    else:
        parts = list(_parts(images, channels, size, resize, None))
        single = len(parts) == 1 and parts[0].ndim == 3 and not _is_folder(images)
    if not parts:
        raise ValueError("there are no images: the list is empty")
    sizes = {(int(part.shape[-2]), int(part.shape[-1])) for part in parts}
    if len(sizes) > 1:
        listed_sizes = ", ".join(_width_by_height(each) for each in sorted(sizes))
        raise ValueError(f"the images have several sizes ({listed_sizes} pixels): give each alone, or all of one size")
    batches = [part if part.ndim == 4 else part[None] for part in parts]
    if len(batches) == 1:
        return ImageBatch(batches[0], single)
    return ImageBatch(torch.cat([batch.to(batches[0].device) for batch in batches]), single)


def as_mask(mask: Any, size: tuple[int, int]) -> Bool[Tensor, "*m H W"]:
    """A mask, or one per image, in any form: True, 1 or white (at least half) = redraw; transparent is black.

    size: height and width of the images, which the masks must have. Raises ValueError.
    """
    if isinstance(mask, list | tuple):
        if not mask:
            raise ValueError("there are no masks: the list is empty")
        masks = [as_mask(each, size) for each in mask]
        batches = [each if each.ndim == 3 else each[None] for each in masks]
        return torch.cat([batch.to(batches[0].device) for batch in batches])
    if isinstance(mask, str | os.PathLike):
        _refuse_folder(mask)
        values: Tensor = load_image(_path(mask), 1, ground="black")[0]
    elif isinstance(mask, Image.Image):
        values = from_pil(mask, 1, ground="black")[0]
    elif isinstance(mask, np.ndarray):
        values = _mask_array(mask, size)
    elif isinstance(mask, Tensor):
        values = mask
    else:
        raise ValueError(f"cannot take a {type(mask).__name__} as a mask: give {KINDS}")
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (2, 3) or not values.numel():
        raise ValueError(f"the mask has shape {tuple(values.shape)}; give (H, W), or (n, H, W) for one per image")
    mask_size = (int(values.shape[-2]), int(values.shape[-1]))
    if mask_size != tuple(size):
        sizes = f"the mask is {_width_by_height(mask_size)} pixels, the image {_width_by_height(size)}"
        raise ValueError(f"{sizes}: they must have the same size")
    return _marked(values)


def _marked(values: Tensor) -> Bool[Tensor, "*m H W"]:
    """True where a value is at least half of the largest possible one: 255 if any value is above 1, else 1."""
    if values.dtype == torch.bool:
        return values
    if values.is_complex():
        raise ValueError(f"the mask holds {values.dtype}; give bool, True = redraw")
    low, high = (float(value) for value in values.float().aminmax())
    if not -0.01 <= low <= high <= 255.5:  # false for NaN too
        raise ValueError(f"the mask runs from {low:.4g} to {high:.4g}; give bool, or 0 to 1, or 0 to 255")
    return values >= (0.5 if high <= 1.01 else 127.5)


def _mask_array(mask: np.ndarray, size: tuple[int, int]) -> Tensor:
    if mask.dtype.kind not in "buif":
        raise ValueError(f"the mask holds {mask.dtype}; give bool, True = redraw")
    if mask.ndim == 3 and mask.shape[:2] == tuple(size) and mask.shape[-2:] != tuple(size):  # channels last
        if mask.shape[-1] == 1:
            mask = mask[..., 0]
        elif mask.dtype == np.uint8 and mask.shape[-1] in (3, 4):
            return from_pil(Image.fromarray(mask), 1, ground="black")[0]
    return torch.from_numpy(mask.astype({"b": bool, "f": np.float32}.get(mask.dtype.kind, np.int64)))


def _parts(
    item: Any, channels: int, size: tuple[int, int] | None, resize: bool, place: int | None
) -> Iterator[Float[Tensor, "..."]]:
    """The images of one entry of a list, each (c, H, W) or (n, c, H, W); a folder has several."""
    for entry in _in_folder(_path(item)) if _is_folder(item) else [item]:
        try:
            least = OVERSAMPLING * max(size) if size and resize else 0
            yield _fitted(entry, _pixels(entry, channels, place, least), size, resize)
        except ValueError as error:
            if place is None:
                raise
            raise ValueError(f"image {place} of the list: {error}") from None


def _pixels(item: Any, channels: int, place: int | None, at_least: int = 0) -> Shaped[Tensor, "*n c H W"]:
    """One entry at its own size, as uint8 or float32 in [0, 1]. at_least: as in `load_image`."""
    if isinstance(item, Tensor):
        return _from_tensor(item, channels)
    if isinstance(item, np.ndarray):
        return _from_array(item, channels)
    if isinstance(item, Image.Image):
        if not item.width * item.height:
            raise ValueError(f"the PIL image is empty: {item.width} x {item.height} pixels")
        return from_pil(item, channels)
    if isinstance(item, str | os.PathLike):
        return load_image(_path(item), channels, at_least=at_least)
    nested = " inside another list" if place is not None and isinstance(item, list | tuple) else ""
    raise ValueError(f"cannot take a {type(item).__name__}{nested} as an image: give {KINDS}")


def _from_tensor(tensor: Tensor, channels: int) -> Shaped[Tensor, "*n c H W"]:
    shape = tuple(tensor.shape)
    if tensor.layout != torch.strided:
        raise ValueError(f"the tensor is {tensor.layout}: give an ordinary one, with to_dense()")
    if tensor.ndim not in (3, 4):
        raise ValueError(f"the tensor has shape {shape}; give (c, H, W), or (n, c, H, W) for several")
    if not tensor.numel():
        raise ValueError(f"there are no images: the tensor is empty, of shape {shape}")
    counts = (1, 3) if channels in (1, 3) else (channels,)
    if shape[-3] not in counts and shape[-1] in counts:
        order = "(2, 0, 1)" if tensor.ndim == 3 else "(0, 3, 1, 2)"
        raise ValueError(f"the tensor has shape {shape}, which looks channels last: give tensor.permute{order}")
    if tensor.dtype != torch.uint8:
        if not tensor.is_floating_point():
            raise ValueError(f"the tensor holds {tensor.dtype}; give uint8 from 0 to 255, or floats in [0, 1]")
        tensor = tensor.float()
        check_range(tensor, "the tensor")
    return with_channels(tensor, channels)


def _from_array(array: np.ndarray, channels: int) -> Shaped[Tensor, "*n c H W"]:
    name = f"the array of shape {array.shape}"
    if not array.size:
        raise ValueError(f"there are no images: {name} is empty")
    readings = layouts(array.shape, channels)
    if not readings:
        wanted = "1 or 3 channels" if channels in (1, 3) else f"{channels} channels"
        raise ValueError(f"{name} has no dimension of {wanted}: give HWC, CHW, NHWC or NCHW, or HW for one grey image")
    if len(readings) == 2:
        raise ValueError(
            f"{name} can be read as {readings[0]} and as {readings[1]}: give a tensor, which is always channels first"
        )
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinite values are reported by check_range
            pixels = torch.from_numpy(np.array(channels_first(array, readings[0]), dtype=np.float32))
        check_range(pixels, name)
    else:
        pixels = levels(channels_first(array, readings[0]), name)
    return with_channels(pixels, channels)


def _fitted(
    item: Any, pixels: Shaped[Tensor, "*n c h0 w0"], size: tuple[int, int] | None, resize: bool
) -> Float[Tensor, "*n c H W"]:
    """The pixels at the wanted size, as floats; `item`: the input that they came from."""
    own_size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    if size is None or own_size == tuple(size):
        return _as_float(pixels)
    name = f"the image {item}" if isinstance(item, str | os.PathLike) else "the image"
    sizes = f"{name} is {_width_by_height(own_size)} pixels, the model takes {_width_by_height(size)}"
    if not resize:
        if own_size[0] < size[0] or own_size[1] < size[1]:
            raise ValueError(f"{sizes} or larger: enlarge it, with model.transform")
        return _as_float(pixels)
    if isinstance(item, Tensor):
        raise ValueError(f"{sizes}: scale it with model.transform, or give files, PIL images or arrays for scaling")
    if pixels.ndim == 3:
        return _as_float(fit(pixels, size))
    return _as_float(torch.stack([fit(image, size) for image in pixels]))


def _as_float(pixels: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
    return files.to_float(pixels) if pixels.dtype == torch.uint8 else pixels


def _width_by_height(size: tuple[int, int]) -> str:
    """The size as a string, width first."""
    return f"{size[1]} x {size[0]}"


def _path(name: str | os.PathLike[str]) -> Path:
    return Path(os.path.expanduser(name))


def _is_folder(item: Any) -> bool:
    return isinstance(item, str | os.PathLike) and os.path.isdir(_path(item))


def _refuse_folder(item: Any) -> None:
    if _is_folder(item):
        raise ValueError(f"{item} is a folder: give one file of it")


def _in_folder(folder: Path) -> list[Path]:
    """The image files directly in a folder, in order of their names; at least one."""
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and name[0] != ".")
    paths = [folder / name for name in names if not (folder / name).is_dir()]
    if not paths:
        raise ValueError(f"{folder} holds no images: expected {', '.join(SUFFIXES)} directly in it")
    return paths
