"""Integer arrays from .npy files: the header is checked against the file before anything is allocated.

numpy's own reader evaluates the header as Python and allocates what it claims; a header is three fields of fixed form,
so that a pattern for each is enough.
"""

import math
import re
from pathlib import Path

import numpy as np

MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
"""How many bytes hold the header's length, by version of the format."""
MOST_HEADER = 4096
INTEGER = re.compile(r"'descr'\s*:\s*'([<>|=][iu][1248])'")
ORDER = re.compile(r"'fortran_order'\s*:\s*(True|False)")
SHAPE = re.compile(r"'shape'\s*:\s*\(([\d, ]+)\)")
MOST_DIMENSIONS, MOST_DIGITS = 32, 18


def read_integers(path: Path) -> np.ndarray:
    """The integers of a .npy file, mapped and not read. Raises ValueError for any other, cut or empty file."""
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        with open(path, "rb") as file:
            start = file.read(8)
            if start[:6] != MAGIC or len(start) < 8 or start[6] not in LENGTH_BYTES:
                raise ValueError("it does not begin as .npy files do")
            length = int.from_bytes(file.read(LENGTH_BYTES[start[6]]), "little")
            if length > MOST_HEADER:
                raise ValueError(f"its header has {length:,} bytes")
            header = file.read(length).decode("latin-1")
            offset = file.tell()
        return _mapped(path, header, offset)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not readable as .npy of integers: {error}") from None


def _mapped(path: Path, header: str, offset: int) -> np.ndarray:
    kind, order, sides = (pattern.search(header) for pattern in (INTEGER, ORDER, SHAPE))
    if kind is None:
        raise ValueError("it holds no integers")
    numbers = sides[1].replace(",", " ").split() if sides is not None else []
    if order is None or not 1 <= len(numbers) <= MOST_DIMENSIONS or max(map(len, numbers)) > MOST_DIGITS:
        raise ValueError("its header names no shape")
    shape = tuple(map(int, numbers))
    dtype = np.dtype(kind[1])
    claimed, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - offset
    if claimed != there:
        raise ValueError(f"its header claims {claimed:,} bytes of numbers, and {there:,} are there")
    if not claimed:
        raise ValueError("it holds no numbers")
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order="F" if order[1] == "True" else "C")
