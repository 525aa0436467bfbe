"""Integers of .npy files: what numpy wrote comes back, what a header merely claims is never allocated."""

import contextlib
import re
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mage.array_files import open_integers, open_npy, read_npz


@pytest.mark.parametrize("kind", ["u1", "<i2", ">i4", "<u8", "i8"])
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_written_by_numpy_are_read_unchanged(
    kind: str, shape: tuple[int, ...], order: str, tmp_path: Path
) -> None:
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape), dtype=kind, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", array)
    again = open_integers(tmp_path / "a.npy")
    assert again.dtype == array.dtype
    assert np.array_equal(again, array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version: tuple[int, int], tmp_path: Path) -> None:
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, np.arange(6).reshape(2, 3), version=version)
    assert np.array_equal(open_integers(tmp_path / "a.npy"), np.arange(6).reshape(2, 3))


HEADER = "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }"


def npy(
    header: str, body: bytes = b"\0" * 24, *, start: bytes = b"\x93NUMPY\x01\x00", length: int | None = None
) -> bytes:
    return start + (len(header) if length is None else length).to_bytes(2, "little") + header.encode("latin-1") + body


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "ValueError"),
        (b"\x93NUMPY", "ValueError"),
        (npy(HEADER, start=b"PK\x03\x04\x00\x00\x01\x00"), "ValueError"),
        (npy(HEADER, b"\0" * 23), "claims more values than its 23 bytes hold"),
        (npy(HEADER.replace("3,", "10000000000,")), "claims more values"),
        (npy(HEADER.replace("3,", "99999999999999999, 99999999999999999")), "claims more values"),
        (npy(HEADER.replace("3,", ("9" * 3000 + ",") * 2)), "claims more values"),
        (npy(HEADER.replace("3,", "-3,")), "not an array of numbers or text"),
        (npy(HEADER.replace("3,", "")), r"its shape is \(\)"),
        (npy(HEADER.replace("3,", "1, " * 70)), ""),
        (npy(HEADER.replace("3,", "0,"), b""), r"its shape is \(0,\)"),
        (npy(HEADER.replace("<i8", "|O")), "not an array of numbers or text"),
        (npy(HEADER.replace("<i8", "<f8")), "it holds float64"),
        (npy(HEADER.replace("<i8", "|b1")), "it holds bool"),
        (npy("(" * 4000), ""),
        (npy(HEADER + " " * 20_000), "ValueError"),
        (npy("", b"", length=100), "ValueError"),
        (npy(HEADER.replace("False", "Maybe")), "ValueError"),
    ],
)
def test_arrays_without_integers_are_refused_in_one_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot read {re.escape(str(path))} as an array.*{words}"):
        open_integers(path)


def test_missing_files_and_folders_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        open_integers(tmp_path / "none")
    with pytest.raises(ValueError, match="it is a folder"):
        open_integers(tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_archives_written_by_numpy_are_read_unchanged(compressed: bool, tmp_path: Path) -> None:
    arrays = {
        "features": np.random.default_rng(0).normal(size=(3, 4)).astype("f4"),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "number": np.array(7),
        "word": np.array("efflite0"),
        "empty": np.zeros((0, 3)),
    }
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    again = read_npz(tmp_path / "a.npz")
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        assert np.array_equal(again[name], array)
        assert again[name].flags.writeable


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused_unread(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("mu.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (40 * 2**20,)})
        for _ in range(40):
            file.write(bytes(8 * 2**20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"cannot read .*bomb\.npz as arrays"):
        read_npz(tmp_path / "bomb.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1e5, "kilobytes"


def test_a_header_in_an_archive_that_claims_more_than_follows_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("mu.npy", npy(HEADER.replace("(3,)", "(10000000000,)")))
    with pytest.raises(ValueError, match="as arrays"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"PK\x03\x04"])
def test_archives_without_arrays(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    if len(content) == 22:  # an empty archive
        assert read_npz(tmp_path / "a.npz") == {}
    else:
        with pytest.raises(ValueError, match="as arrays"):
            read_npz(tmp_path / "a.npz")


def test_objects_in_an_archive_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="as arrays"):
        read_npz(tmp_path / "a.npz")


@given(header=st.text(max_size=60), body=st.binary(max_size=60), within=st.booleans())
def test_no_header_leads_to_anything_but_an_array_or_a_refusal(
    header: str, body: bytes, within: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.np{'z' if within else 'y'}"
    content = npy(header.encode("latin-1", "replace").decode("latin-1"), body)
    if within:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mu.npy", content)
    else:
        path.write_bytes(content)
    with contextlib.suppress(ValueError):
        read_npz(path) if within else open_npy(path)
