"""Checksums by which damaged files are noticed: CRC-32 of files, and of the values of a JSON file, stored in it.

They find flipped bits and cut files, not forgeries; hashes of models on the Hub are SHA-256 (`mage.store.files`).
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"
"""Entry of a sealed JSON file."""
PIECE = 2**20
"""Bytes read at a time."""


def of_bytes(data: bytes) -> str:
    """Checksum of bytes, as eight hexadecimal digits."""
    return f"{zlib.crc32(data):08x}"


def of_file(path: Path) -> str:
    """Checksum of a file's content."""
    value = 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            value = zlib.crc32(piece, value)
    return f"{value:08x}"


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with a checksum of all the others, in place of one that they have."""
    rest = {name: value for name, value in values.items() if name != CHECKSUM}
    return {**rest, CHECKSUM: _of_values(rest)}


def unsealed(values: Any) -> Any:
    """The values without their checksum. Raises ValueError if they are not those that were sealed.

    Files without a checksum, of older versions, are taken as they are.
    """
    if not isinstance(values, dict) or CHECKSUM not in values:
        return values
    rest = {name: value for name, value in values.items() if name != CHECKSUM}
    if values[CHECKSUM] != _of_values(rest):
        raise ValueError(f"its content does not fit its {CHECKSUM}: it was damaged, or changed by another program")
    return rest


def _of_values(values: Mapping[str, Any]) -> str:
    return of_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
