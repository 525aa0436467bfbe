"""Arrays in .npy, .npz and TIFF files: the header is checked against the file's size before anything is allocated."""

import math
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

MOST_PAGES = 20_000
"""Largest number of pages of a TIFF; tifffile writes an array (H, W, c) as H pages."""
EXPANSION = 2000
"""Largest ratio of values to compressed bytes: deflate and LZW cannot reach more."""
SMALL = 2**28
"""Bytes of values that any TIFF may have: sparse and empty tiles are compressed without limit."""
MOST_UNPACKED = 100
"""Largest ratio of the bytes in an .npz to its size, beyond SMALL; arrays of real features are far below."""
OTHER_DIALECTS = "lsm mmstack ome ndtiff fluoview stk sis svs scn qpi ndpi bif avs eer philips scanimage nih mdgel"
"""TIFF dialects of microscopes and scanners. They are not interpreted, because some refer to further files."""


def regular_size(path: str | Path) -> int:
    """Size of a file in bytes. Raises ValueError for a folder, pipe or device without opening it: a pipe has no end."""
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
    """The array in a .npy file, memory-mapped and read-only. Raises ValueError."""
    size = regular_size(path)
    try:
        with open(path, "rb") as file:
            shape, columns_first, kind = npy_header(file)
            start = file.tell()
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path} as an array ({error})") from None
    claimed = math.prod(shape) * kind.itemsize
    if claimed > size - start:
        raise ValueError(f"cannot read {path} as an array: it claims more values than its {size - start:,} bytes hold")
    if not claimed:
        return np.empty(shape, kind)
    return np.memmap(path, kind, "r", start, tuple(shape), "F" if columns_first else "C")


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays in an .npz file, by name, in memory. Raises ValueError, also for one that unpacks to far too much."""
    try:
        size = regular_size(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > max(SMALL, MOST_UNPACKED * size):
                raise ValueError
            return {member.filename.removesuffix(".npy"): _unpacked(archive, member) for member in members}
    except Exception as error:  # a forged archive or header can raise any exception
        raise ValueError(f"cannot read {path} as arrays ({type(error).__name__})") from None


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        shape, columns_first, kind = npy_header(file)
        claimed = math.prod(shape) * kind.itemsize
        if claimed > member.file_size:
            raise ValueError
        values = np.frombuffer(bytearray(file.read(claimed)), kind)
        return values.reshape(shape, order="F" if columns_first else "C")


def npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and type of the array that follows in an open file. Raises ValueError."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, columns_first, kind = read(file)
    except Exception as error:  # numpy parses headers as Python literals, which can raise any exception
        raise ValueError(type(error).__name__) from None
    if kind.hasobject or not kind.itemsize or len(shape) > 32 or any(side < 0 for side in shape):
        raise ValueError("not an array of numbers or text")
    return shape, columns_first, kind


def open_integers(path: str | Path) -> np.ndarray:
    """Like open_npy; raises ValueError for an empty array, or one of anything but integers."""
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
    except Exception as error:  # a damaged TIFF can raise any exception
        refusal = f"it is damaged ({type(error).__name__})"
    raise ValueError(f"cannot read {path} as an array: {refusal}")


def _refusal(tiff: Any, size: int, most: int) -> str:
    """Reason not to read a TIFF file of `size` bytes; empty if there is none."""
    try:
        tiff.pages[MOST_PAGES]  # reads no further; counting the pages could run in a circle
        return f"it has more than {MOST_PAGES} pages, or its pages run in a circle"
    except IndexError:
        pass
    page, shape, item = tiff.pages.first, tiff.series[0].shape, tiff.series[0].dtype.itemsize
    values = math.prod(shape)
    if values > most:
        return f"its shape {tuple(shape)} is {values:,} values, and at most {most:,} are read"
    if values * item > max(SMALL, EXPANSION * size):
        return f"it claims {values * item:,} bytes of values in a file of {size:,}"
    # the page has as many strips or tiles as its shape needs, none longer than its values can be
    if math.prod(page.chunked) > len(page.dataoffsets):
        return "it lacks some of its strips or tiles"
    if max(page.databytecounts) > 2 * math.prod(page.chunks) * item + 2**16:
        return "a strip or tile is longer than the values in it"
    return ""
