"""The only code that knows value ranges: uint8 in files and batches, float in [0, 1] in networks.

Letters: n images, c channels, h height, w width.
"""

import io
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from mage import atomic

PIL_MODES = {1: "L", 3: "RGB"}
Rounding = Literal["nearest", "truncate"]
"""How a float becomes one of 256 levels: the nearest one, or, as in much public code, the one below (on average half a
level darker)."""


def load_image(path: str | Path, channels: int = 3) -> UInt8[Tensor, "c h w"]:
    """Read an image file as grey (`channels=1`), RGB (3), or with any other number of channels from .npy or TIFF.

    Such arrays are (H, W, c) or (c, H, W) of uint8, uint16 or floats in [0, 1]. Raises ValueError for unreadable files.
    """
    if channels not in PIL_MODES or Path(path).suffix.lower() == ".npy":
        return _from_bands(_read_bands(Path(path)), channels, str(path))
    try:
        with Image.open(path) as image:
            return from_pil(_eight_bits(image).convert(PIL_MODES[channels]))
    except FileNotFoundError:
        raise ValueError(f"no such image file: {path}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read {path} as an image ({type(error).__name__})") from None


def from_bytes(data: bytes, channels: int = 3) -> UInt8[Tensor, "c h w"]:
    """The image in the bytes of a PNG, JPEG or the like, as grey (`channels=1`) or RGB (3). Raises ValueError."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return from_pil(_eight_bits(image).convert(PIL_MODES[channels]))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"these {len(data)} bytes are no image ({type(error).__name__})") from None


def _read_bands(path: Path) -> np.ndarray:
    """The array in a .npy or TIFF file, whatever its bands mean."""
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            return np.asarray(tifffile.imread(path))
    except ImportError:
        raise ValueError(f"{path} has many bands, which takes the package tifffile: pip install tifffile") from None
    except FileNotFoundError:
        raise ValueError(f"no such image file: {path}") from None
    except Exception as error:  # what a damaged TIFF raises is anybody's guess
        raise ValueError(f"cannot read {path} as an array ({type(error).__name__})") from None
    raise ValueError(f"{path} cannot hold other than 1 or 3 channels: give .npy or TIFF files")


def _from_bands(array: np.ndarray, channels: int, name: str) -> UInt8[Tensor, "c h w"]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[-1] != channels and array.shape[0] == channels:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[-1] != channels or not array.size:
        raise ValueError(f"{name} has shape {array.shape}; expected (H, W, {channels}) or ({channels}, H, W)")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity; give floats in [0, 1]")
        array = (array.clip(0, 1) * 255).round().astype(np.uint8)
    elif array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"{name} holds {array.dtype}; give uint8, uint16 or floats in [0, 1]")
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey images of 16 bits scaled to 8; Pillow would cut off all but the darkest levels."""
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))


def from_pil(image: Image.Image) -> UInt8[Tensor, "c h w"]:
    """A PIL image in mode L or RGB as a tensor."""
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def to_float(images: UInt8[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
    """uint8 -> float32 in [0, 1]."""
    return images.float().div_(255)


def to_uint8(images: Float[Tensor, "*n c h w"], rounding: Rounding = "nearest") -> UInt8[Tensor, "*n c h w"]:
    """float in [0, 1] -> uint8; values outside are clamped."""
    levels = images.float().clamp(0, 1).mul(255)
    return (levels.round() if rounding == "nearest" else levels).to(torch.uint8)


def psnr(first: Float[Tensor, "n c H W"], second: Float[Tensor, "n c H W"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each pair of images in [0, 1], in dB; at most 100."""
    error = (first.float() - second.float()).square().flatten(1).mean(dim=1)
    return -10 * error.clamp(min=1e-10).log10()


def to_pil(image: Float[Tensor, "c h w"]) -> Image.Image:
    """One image with 1 or 3 channels as PIL; of any other number of channels the first is shown."""
    array = to_uint8(image if image.shape[0] in PIL_MODES else image[:1]).cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def fit(
    image: UInt8[Tensor, "c h0 w0"], size: tuple[int, int], interpolation: Literal["bicubic", "bilinear"] = "bicubic"
) -> UInt8[Tensor, "c h w"]:
    """Scale an image so that it just covers `size` (height, width), then cut the centre (antialiased).

    For a square it is torchvision's Resize(side) and CenterCrop(side), pixel for pixel.
    """
    height, width = image.shape[-2:]
    scaled = _covering((height, width), size)
    if scaled != [height, width]:
        image = v2.functional.resize(image, scaled, v2.InterpolationMode(interpolation), antialias=True)
    cut: Tensor = v2.functional.center_crop(image, list(size))
    return cut


def fit_mask(mask: Bool[Tensor, "h0 w0"], size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """The same for a mask of marked pixels: a pixel of the result is marked if it shows any part of a marked one."""
    scaled = _covering((mask.shape[0], mask.shape[1]), size)
    marked = functional.adaptive_max_pool2d(mask[None].float(), scaled)
    cut: Tensor = v2.functional.center_crop(marked, list(size))[0] > 0
    return cut


def _covering(pixels: tuple[int, int], size: tuple[int, int]) -> list[int]:
    """Height and width of an image of `pixels` after scaling it to just cover `size`; the longer side is truncated."""
    (rows, columns), (height, width) = pixels, size
    if height * columns >= width * rows:
        return [height, height * columns // rows]
    return [width * rows // columns, width]


def make_grid(
    images: Float[Tensor, "n c h w"], columns: int | None = None, padding: int = 2
) -> Float[Tensor, "c gh gw"]:
    """Images side by side, row by row, on white; `columns` defaults to the square root of their number."""
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


def labelled_rows(rows: list[tuple[str, Float[Tensor, "n c h w"]]], side: int = 64) -> Float[Tensor, "c gh gw"]:
    """Rows of images, each with its label on the left; images are enlarged to about `side` pixels."""
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    wide = 12 + max(84, *(math.ceil(font.getlength(text)) for text, _ in rows))
    factor = max(1, round(side / rows[0][1].shape[-1]))
    strips = []
    for text, row in rows:
        strip = make_grid(row.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3), columns=len(row))
        margin = Image.new("L", (wide, strip.shape[1]), 255)
        ImageDraw.Draw(margin).text((6, strip.shape[1] / 2), text, fill=40, anchor="lm", font=font)
        label = to_float(from_pil(margin)).expand(strip.shape[0], -1, -1)
        strips.append(torch.cat([label.to(strip), strip], dim=2))
    return torch.cat(strips, dim=1)
