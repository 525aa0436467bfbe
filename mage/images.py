"""Reading, writing and converting images. Values are uint8 in files and batches, floats in [0, 1] in networks.

Letters: n images, c channels, h height, w width.
"""

import io
import math
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from mage import array_files, atomic, pil_modes
from mage.pil_modes import Ground

PIL_MODES = {1: "L", 3: "RGB"}
PROGRAMS = ("EPS", "WMF")
"""Formats for which Pillow starts another program."""
REDUCIBLE = ("JPEG", "MPO")
"""Formats that can be decoded at a part of their size: of `OVERSAMPLING` times what is needed or more."""
OVERSAMPLING = 2
LONGEST = 8
"""What is kept of a long strip before it is scaled, as a multiple of the side that is cut from it."""
Rounding = Literal["nearest", "truncate"]
"""Conversion of a float to one of 256 levels: the nearest, or, as in much public code, the next lower one (on average
half a level darker)."""


class Unreadable(ValueError):
    """A file cannot be read as an image; `problem` says why in a few words, such as its number of pixels."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"cannot read {self.name} as an image ({self.problem})"


def load_image(
    path: str | Path,
    channels: int = 3,
    ground: Ground = "white",
    *,
    most_pixels: int | None = None,
    at_least: int = 0,
) -> UInt8[Tensor, "c h w"]:
    """Read an image file as grey (`channels=1`), RGB (3), or with any other number of channels from .npy or TIFF.

    Photographs are rotated by their EXIF orientation; transparent pixels show the `ground`. Arrays are (H, W, c) or
    (c, H, W) of uint8, uint16 or floats in [0, 1]. Raises ValueError for unreadable files, and for those with more
    pixels than `most_pixels`; None: than PIL.Image.MAX_IMAGE_PIXELS. at_least: a JPEG file may be decoded at a half, a
    quarter or an eighth of its size, as long as both sides keep so many pixels: several times faster; 0: as it is.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        array = array_files.open_npy(path)
        if array.size > (most_pixels or pixel_limit()) * channels:
            raise ValueError(f"{path} holds {array.size:,} numbers, more than an image may have pixels")
        return _from_bands(array, channels, str(path))
    if channels in PIL_MODES:
        array_files.regular_size(path)
        return _decoded(path, channels, ground, str(path), most_pixels, at_least)
    if suffix not in (".tif", ".tiff"):
        raise ValueError(f"{path} cannot hold other than 1 or 3 channels: give .npy or TIFF files")
    return _from_bands(array_files.read_tiff(path, pixel_limit() * channels), channels, str(path))


def from_bytes(data: bytes, channels: int = 3, *, at_least: int = 0) -> UInt8[Tensor, "c h w"]:
    """The image in the bytes of a PNG, JPEG or the like, as grey (`channels=1`) or RGB (3). Raises ValueError."""
    return _decoded(io.BytesIO(data), channels, "white", f"these {len(data)} bytes", None, at_least)


def from_pil(image: Image.Image, channels: int, ground: Ground = "white") -> UInt8[Tensor, "c h w"]:
    """A PIL image of any mode as grey (`channels=1`) or RGB (3), upright, transparent pixels on the `ground`."""
    if channels not in PIL_MODES:
        raise ValueError(f"a PIL image has 1 or 3 channels, not {channels}: give an array or a tensor")
    array = np.asarray(pil_modes.plain(image, PIL_MODES[channels], ground))
    return torch.from_numpy((array[None] if array.ndim == 2 else array.transpose(2, 0, 1)).copy())


def _decoded(
    source: Path | io.BytesIO, channels: int, ground: Ground, name: str, most_pixels: int | None, at_least: int
) -> UInt8[Tensor, "c h w"]:
    limit = "PIL.Image.MAX_IMAGE_PIXELS, " if most_pixels is None else ""
    most = pixel_limit() if most_pixels is None else most_pixels
    try:
        # opened here: a named file Pillow maps to memory, and shears it if it is a TIFF that lies on its side
        with open(source, "rb") if isinstance(source, Path) else source as file, Image.open(file) as image:
            width, height = image.size
            if width * height > most:
                problem = f"{width} x {height} pixels are more than {limit}{most}"
            elif image.format in PROGRAMS:
                problem = f"{image.format} is not a format of pixels: convert it to PNG"
            else:
                if at_least and image.format in REDUCIBLE:
                    image.draft(image.mode, (at_least, at_least))
                return from_pil(image, channels, ground)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own, before it tells the size
        problem = f"its pixels are more than PIL.Image.MAX_IMAGE_PIXELS, {pixel_limit()}"
    except pil_modes.NoLevels as error:
        problem = str(error)
    except UnidentifiedImageError:
        problem = "damaged, or of a format that this Pillow does not read"
    except Exception as error:  # decoders can raise any exception for damaged files
        problem = type(error).__name__
    raise Unreadable(name, problem)


def pixel_limit() -> int:
    """Pillow's limit against decompression bombs; its None means no limit."""
    return Image.MAX_IMAGE_PIXELS or sys.maxsize


def _from_bands(array: np.ndarray, channels: int, name: str) -> UInt8[Tensor, "c h w"]:
    readings = layouts(array.shape, channels) if array.ndim < 4 and array.size else []
    if not readings:
        raise ValueError(f"{name} has shape {array.shape}; expected (H, W, {channels}) or ({channels}, H, W)")
    image = channels_first(array, readings[0])  # of two, (H, W, c)
    if image.dtype.kind != "f":
        return with_channels(levels(image, name), channels)
    floats = torch.from_numpy(image.astype(np.float32))
    check_range(floats, name)
    return with_channels(to_uint8(floats), channels)


def layouts(shape: tuple[int, ...], channels: int) -> list[str]:
    """Layouts that an array of this shape can have if its images can be converted to `channels`: HW, HWC, CHW, ..."""
    counts = tuple(PIL_MODES) if channels in PIL_MODES else (channels,)
    if len(shape) == 2:
        return ["HW"] if 1 in counts else []
    if len(shape) not in (3, 4):
        return []
    many = "N" if len(shape) == 4 else ""
    return [many + order for order, at in (("HWC", -1), ("CHW", -3)) if shape[at] in counts]


def channels_first(array: np.ndarray, layout: str) -> np.ndarray:
    """An array of this layout as (*n, c, h, w)."""
    if layout == "HW":
        return array[None]
    return np.moveaxis(array, -1, -3) if layout.endswith("HWC") else array


def levels(array: np.ndarray, name: str) -> UInt8[Tensor, "..."]:
    """The levels of grey in an array of uint8 or uint16, as 0 to 255."""
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ValueError(f"{name} holds {array.dtype}; give uint8, uint16 or floats in [0, 1]")
    return torch.from_numpy((array / 257).round().astype(np.uint8) if array.dtype.itemsize == 2 else np.array(array))


def with_channels(image: Shaped[Tensor, "*n c h w"], channels: int) -> Shaped[Tensor, "*n d h w"]:
    """Grey (1 channel) to RGB (3) or back, with Pillow's weights, so that grey values equal those read from a file."""
    count = image.shape[-3]
    if count == channels:
        return image
    if {count, channels} != set(PIL_MODES):
        raise ValueError(f"the image has {count} channels, {channels} are needed; only 1 and 3 are converted")
    if count == 1:
        return image.expand(*image.shape[:-3], 3, -1, -1).contiguous()
    red, green, blue = (image if image.is_floating_point() else image.int()).unbind(-3)
    grey = 19595 * red + 38470 * green + 7471 * blue
    grey = grey / 65536 if image.is_floating_point() else (grey + 32768 >> 16).to(torch.uint8)
    return grey.unsqueeze(-3)


def check_range(values: Float[Tensor, "..."], name: str) -> None:
    """Raise ValueError unless floats lie in [0, 1], up to rounding; the message suggests a conversion."""
    low, high = (float(value) for value in values.detach().aminmax())
    if -0.01 <= low <= high <= 1.01:
        return
    if math.isnan(low) or math.isinf(low) or math.isinf(high):
        raise ValueError(f"{name} holds NaN or infinity; give floats in [0, 1]")
    if low >= -1.01 and high <= 1.01:
        advice = "this looks scaled to [-1, 1]: give (x + 1) / 2"
    elif -10 <= low < -0.01 and high <= 10:
        advice = "this looks normalised by a mean and standard deviation; give images in [0, 1]"
    elif low >= -0.01 and 2 < high <= 255.5:
        advice = "divide by 255, or give uint8"
    else:
        advice = "give images in [0, 1]"
    raise ValueError(f"{name}: values run from {low:.4g} to {high:.4g}: {advice}")


def to_float(images: UInt8[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
    """uint8 -> PyTorch's default type, float32, in [0, 1]."""
    return images.to(torch.get_default_dtype()).div_(255)


def to_uint8(images: Float[Tensor, "*n c h w"], rounding: Rounding = "nearest") -> UInt8[Tensor, "*n c h w"]:
    """float in [0, 1] -> uint8; values outside are clamped."""
    levels = images.float().clamp(0, 1).mul(255)
    return (levels.round() if rounding == "nearest" else levels).to(torch.uint8)


def psnr(first: Float[Tensor, "n c H W"], second: Float[Tensor, "n c H W"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each pair of images in [0, 1], in dB; at most 100."""
    error = (first.float() - second.float()).square().flatten(1).mean(dim=1)
    return -10 * error.clamp(min=1e-10).log10()


def to_pil(image: Shaped[Tensor, "c h w"]) -> Image.Image:
    """One image, uint8 or float, with 1 or 3 channels as PIL; of any other number of channels the first is shown."""
    shown = image if image.shape[0] in PIL_MODES else image[:1]
    array = (to_uint8(shown) if shown.is_floating_point() else shown).cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def fit(
    image: Shaped[Tensor, "c h0 w0"], size: tuple[int, int], interpolation: Literal["bicubic", "bilinear"] = "bicubic"
) -> Shaped[Tensor, "c h w"]:
    """Scale an image so that it just covers `size` (height, width), then crop the centre (antialiased).

    The image is uint8 or float in [0, 1]. For a square this is torchvision's Resize(side) and CenterCrop(side).
    """
    image = shorten(image, size)
    height, width = image.shape[-2:]
    scaled = _covering((height, width), size)
    if scaled != [height, width]:
        image = v2.functional.resize(image, scaled, v2.InterpolationMode(interpolation), antialias=True)
        image = image.clamp(0, 1) if image.is_floating_point() else image  # bicubic overshoots at edges
    cut: Tensor = v2.functional.center_crop(image, list(size))
    return cut


def fit_mask(mask: Bool[Tensor, "h0 w0"], size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """The same for a mask: a pixel of the result is marked if it covers any part of a marked pixel."""
    mask = shorten(mask, size)
    scaled = _covering((mask.shape[0], mask.shape[1]), size)
    marked = functional.adaptive_max_pool2d(mask[None].float(), scaled)
    cut: Tensor = v2.functional.center_crop(marked, list(size))[0] > 0
    return cut


def shorten(image: Shaped[Tensor, "*c h0 w0"], size: tuple[int, int]) -> Shaped[Tensor, "*c h w"]:
    """The middle of a strip that is very long for `size` (height, width), with enough around what is cut from it.

    Other images are returned as they are. Scaled as a whole, a strip of 1 x 1,000,000 pixels would fill the memory.
    """
    (rows, columns), (height, width) = image.shape[-2:], size
    for dim, have, need in ((-2, rows, height * columns / width), (-1, columns, width * rows / height)):
        most = LONGEST * (math.ceil(need) + 1)
        if have > most:
            kept = most + (have - most) % 2  # as many pixels are cut from both ends
            image = image.narrow(dim, (have - kept) // 2, kept)
    return image


def _covering(pixels: tuple[int, int], size: tuple[int, int]) -> list[int]:
    """Height and width of an image of `pixels` after scaling it to just cover `size`; the longer side is truncated."""
    (rows, columns), (height, width) = pixels, size
    if height * columns >= width * rows:
        return [height, height * columns // rows]
    return [width * rows // columns, width]


def make_grid(
    images: Float[Tensor, "n c h w"], columns: int | None = None, padding: int = 2
) -> Float[Tensor, "c gh gw"]:
    """Images in rows on a white ground; `columns` defaults to the square root of their number."""
    count, channels, height, width = images.shape
    if not count:
        raise ValueError("a grid needs at least one image")
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    size = (channels, rows * (height + padding) + padding, columns * (width + padding) + padding)
    grid = images.new_ones(size)
    for index, image in enumerate(images):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        grid[:, top : top + height, left : left + width] = image
    return grid


def png_bytes(image: Float[Tensor, "c h w"]) -> bytes:
    """One image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(path: str | Path, image: Float[Tensor, "c h w"]) -> None:
    """Write one image as PNG, atomically."""
    atomic.write_bytes(path, png_bytes(image))


def enlarge(image: Float[Tensor, "c h w"], least: int = 512) -> Float[Tensor, "c bh bw"]:
    """Repeat each pixel of a small picture so that its longer side has about `least` pixels; never shrinks."""
    factor = max(1, round(least / max(image.shape[1:])))
    return image.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
