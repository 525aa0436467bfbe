"""A PIL image of any mode as grey or RGB with 8 bits: upright, and without transparency."""

from typing import Literal

import numpy as np
from PIL import Image

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".npy",
)  # fmt: skip
"""Suffixes of the files in a folder that are read as images."""
UNREAD_SUFFIXES = (".heic", ".heif", ".avif", ".jp2", ".jxl")
"""Suffixes of photographs that are not read, because not every Pillow can."""
Ground = Literal["white", "black"]
"""Colour behind transparent pixels."""
ORIENTATION = 0x0112
"""EXIF's tag for the orientation of the camera."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class NoLevels(ValueError):
    """Values that are not grey levels; the text says which they are."""


def plain(image: Image.Image, mode: str, ground: Ground = "white") -> Image.Image:
    """The image in mode "L" or "RGB". Raises NoLevels for values that are not grey levels."""
    image.load()  # some formats rotate the image, or read their EXIF, only when loaded
    turned = UPRIGHT.get(orientation(image))
    if turned is not None:
        image = image.transpose(turned)
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        image = _levels(image)
    elif image.mode == "LAB":
        image = _from_lab(image)
    if image.has_transparency_data:
        # La and RGBa are premultiplied, and reach RGBA by way of LA
        over = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, ground), over).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8. Pillow's exif_transpose rewrites all tags, which fails if one of them is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # unreadable EXIF is ignored: the pixels are good
        return 1


def _levels(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, scaled to 8; Pillow would clip all but the darkest levels."""
    values = np.asarray(image)
    if image.mode != "F":  # 16 bits: cameras and scanners do not use the upper 16 of 32
        return Image.fromarray((values.clip(0, 65535) / 257).round().astype(np.uint8))
    low, high = float(values.min()), float(values.max())
    if not -0.01 <= low <= high <= 255.5:  # false for NaN too
        raise NoLevels(f"its values run from {low:g} to {high:g}; expected 0 to 1, or 0 to 255")
    return Image.fromarray((values * (255 if high <= 1.01 else 1)).clip(0, 255).round().astype(np.uint8))


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted
