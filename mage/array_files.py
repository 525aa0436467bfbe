"""Arrays in .npy and TIFF files: what the header claims is held against the file before anything is allocated."""

import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

MOST_PAGES = 20_000
"""Pages of a TIFF; tifffile writes an array (H, W, c) as H of them."""
EXPANSION = 2000
"""Values are at most so many times larger than the compressed file: deflate and LZW cannot do more."""
SMALL = 2**28
"""Bytes that any TIFF may take: sparse and empty tiles are compressed without limit."""
OTHER_DIALECTS = "lsm mmstack ome ndtiff fluoview stk sis svs scn qpi ndpi bif avs eer philips scanimage nih mdgel"
"""Of microscopes and scanners; some name other files, which would be opened too."""


def regular_size(path: str | Path) -> int:
    """Bytes of a file; raises ValueError for anything else of that name, unopened: reading a pipe would never end."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:  # links in a circle, names too long or with a zero byte
        raise ValueError(f"cannot read {path} as an image ({type(error).__name__})") from None
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"cannot read {path} as an image: it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"cannot read {path} as an image: it is a pipe, a socket or a device, not a file")
    return status.st_size


def open_npy(path: str | Path) -> np.ndarray:
    """The array in a .npy file, mapped read-only: its values are read when they are used. Raises ValueError."""
    size = regular_size(path)
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, columns_first, kind = read(file)
            start = file.tell()
        if kind.hasobject or not kind.itemsize or len(shape) > 32 or any(side < 0 for side in shape):
            raise ValueError
    except Exception as error:  # numpy reads headers as Python text: whatever that raises
        raise ValueError(f"cannot read {path} as an array ({type(error).__name__})") from None
    claimed = math.prod(shape) * kind.itemsize
    if claimed > size - start:
        raise ValueError(f"cannot read {path} as an array: it claims more values than its {size - start:,} bytes hold")
    if not claimed:
        return np.empty(shape, kind)
    return np.memmap(path, kind, "r", start, tuple(shape), "F" if columns_first else "C")


def open_integers(path: str | Path) -> np.ndarray:
    """As open_npy; raises ValueError where there are no numbers, or numbers that are no integers."""
    array = open_npy(path)
    if array.dtype.kind not in "iu":
        raise ValueError(f"cannot read {path} as an array of integers: it holds {array.dtype}")
    if not array.size or not array.ndim:
        raise ValueError(f"cannot read {path} as an array of integers: its shape is {array.shape}")
    return array


def read_tiff(path: str | Path, most: int) -> np.ndarray:
    """The first array in a TIFF file, of at most `most` values. Raises ValueError; needs the package tifffile."""
    size = regular_size(path)
    try:
        import tifffile
    except ImportError:
        raise ValueError(f"{path} has many bands, which takes the package tifffile: pip install tifffile") from None
    dialects: dict[str, Any] = {f"is_{name}": False for name in OTHER_DIALECTS.split()}
    try:
        with tifffile.TiffFile(path, **dialects) as tiff:
            refusal = _refusal(tiff, size, most)
            if not refusal:
                return np.asarray(tiff.series[0].asarray(maxworkers=1))
    except Exception as error:  # what a damaged TIFF raises is anybody's guess
        refusal = f"it is damaged ({type(error).__name__})"
    raise ValueError(f"cannot read {path} as an array: {refusal}")


def _refusal(tiff: Any, size: int, most: int) -> str:
    """Why a TIFF file of `size` bytes is not read; empty if nothing speaks against it."""
    try:
        tiff.pages[MOST_PAGES]  # walks no further; asking for the number of pages may run in a circle
        return f"it has more than {MOST_PAGES} pages, or its pages run in a circle"
    except IndexError:
        pass
    page, shape, item = tiff.pages.first, tiff.series[0].shape, tiff.series[0].dtype.itemsize
    values = math.prod(shape)
    if values > most:
        return f"its shape {tuple(shape)} is {values:,} values, and at most {most:,} are read"
    if values * item > max(SMALL, EXPANSION * size):
        return f"it claims {values * item:,} bytes of values in a file of {size:,}"
    # of every page, its strips or tiles: as many as the shape needs, none longer than its values can become
    if math.prod(page.chunked) > len(page.dataoffsets):
        return "it lacks some of its strips or tiles"
    if max(page.databytecounts) > 2 * math.prod(page.chunks) * item + 2**16:
        return "a strip or tile is longer than the values in it"
    return ""
