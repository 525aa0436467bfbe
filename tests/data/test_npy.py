"""Integers of .npy files: what numpy wrote comes back, what a header merely claims is never allocated."""

import re
from pathlib import Path

import numpy as np
import pytest

from mage.data.npy import read_integers


@pytest.mark.parametrize("kind", ["u1", "<i2", ">i4", "<u8", "i8"])
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_wrote_comes_back(kind: str, shape: tuple[int, ...], order: str, tmp_path: Path) -> None:
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape), dtype=kind, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", array)
    again = read_integers(tmp_path / "a.npy")
    assert again.dtype == array.dtype
    assert np.array_equal(again, array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version: tuple[int, int], tmp_path: Path) -> None:
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, np.arange(6).reshape(2, 3), version=version)
    assert np.array_equal(read_integers(tmp_path / "a.npy"), np.arange(6).reshape(2, 3))


HEADER = "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }"


def npy(
    header: str, body: bytes = b"\0" * 24, *, start: bytes = b"\x93NUMPY\x01\x00", length: int | None = None
) -> bytes:
    return start + (len(header) if length is None else length).to_bytes(2, "little") + header.encode("latin-1") + body


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not begin"),
        (b"\x93NUMPY", "does not begin"),
        (npy(HEADER, start=b"\x93NUMPY\x09\x00"), "does not begin"),
        (npy(HEADER, start=b"PK\x03\x04\x00\x00\x01\x00"), "does not begin"),
        (npy(HEADER, b"\0" * 23), "claims 24 bytes of numbers, and 23 are there"),
        (npy(HEADER, b"\0" * 32), "claims 24 bytes of numbers, and 32 are there"),
        (npy(HEADER.replace("3,", "10000000000,")), "claims 80,000,000,000 bytes"),
        (npy(HEADER.replace("3,", "99999999999999999, 99999999999999999")), "bytes of numbers, and 24"),
        (npy(HEADER.replace("3,", "9" * 3000)), "names no shape"),
        (npy(HEADER.replace("3,", "-3,")), "names no shape"),
        (npy(HEADER.replace("3,", "")), "names no shape"),
        (npy(HEADER.replace("3,", "1, " * 70)), "names no shape"),
        (npy(HEADER.replace("3,", "0,"), b""), "holds no numbers"),
        (npy(HEADER.replace("<i8", "|O")), "holds no integers"),
        (npy(HEADER.replace("<i8", "<f8")), "holds no integers"),
        (npy(HEADER.replace("<i8", "|b1")), "holds no integers"),
        (npy("(" * 4000), "holds no integers"),
        (npy(HEADER + " " * 5000), "its header has 5,0"),
        (npy("", b"", length=100), "holds no integers"),
        (npy(HEADER.replace("False", "Maybe")), "names no shape"),
    ],
)
def test_what_is_no_array_of_integers_is_one_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not readable as .npy of integers: .*{words}"):
        read_integers(path)


def test_what_is_no_file_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="there is no such file"):
            read_integers(path)
