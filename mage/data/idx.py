"""MNIST's file format, plain or gzipped: a header that ends with the sizes as big-endian int32, then bytes."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array in `path` or `path`.gz. Raises ValueError if neither exists, or the file is damaged."""
    zipped = path.with_name(f"{path.name}.gz")
    if not path.is_file() and not zipped.is_file():
        raise ValueError(f"{path.parent} lacks {path.name} (or {zipped.name})")
    try:
        data = path.read_bytes() if path.is_file() else gzip.decompress(zipped.read_bytes())
        sizes = struct.unpack_from(f">{dimensions}i", data, 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(sizes).copy()
    except (ValueError, OSError, EOFError, struct.error, zlib.error):
        raise ValueError(f"{path} (or .gz) is damaged; download it again") from None
