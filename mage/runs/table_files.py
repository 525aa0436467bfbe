"""Tables in .csv, .parquet and .npz files that are read and written in pieces, because they may not fit into memory.

A piece is a mapping from the names of the columns to arrays of equal length. A column of vectors is one column in
.parquet and .npz; in .csv it has a column for each number: features0, features1, ...
"""

import contextlib
import csv
import importlib
import itertools
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from mage.array_files import npy_header

Piece = dict[str, np.ndarray]
SUFFIXES = (".csv", ".parquet", ".npz")
ROWS = 1024
"""Rows of a piece that is read."""
QUOTED = re.compile(r'[",\r\n]')
"""What puts the cell that holds it into quotes in a .csv."""


@dataclass(frozen=True)
class Column:
    """Name and kind of a column."""

    name: str
    kind: Literal["text", "integer", "number", "vector"]
    width: int = 1
    """Numbers in a vector."""

    @property
    def headings(self) -> list[str]:
        """Names of its columns in a .csv."""
        return [f"{self.name}{place}" for place in range(self.width)] if self.kind == "vector" else [self.name]

    def array(self, values: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Values in the column's type: text, int64 or float32, with a second dimension for vectors."""
        if self.kind == "text":
            return np.asarray(values, dtype=np.str_)
        array = np.asarray(values, dtype=np.int64 if self.kind == "integer" else np.float32)
        return array.reshape(-1, self.width) if self.kind == "vector" else array


def check_format(path: Path) -> None:
    """Raise ValueError for another suffix, or a .parquet without the package that writes it."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--out {path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def _pyarrow() -> Any:
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise ValueError(
            "a .parquet file takes the package pyarrow: pip install 'mage-vision[tables]'; or write .csv or .npz"
        ) from None


@contextlib.contextmanager
def table_writer(path: Path, form: str, columns: Sequence[Column], count: int) -> Iterator[Callable[[Piece], None]]:
    """Yield a function that appends a piece to a new table of `count` rows.

    form: the suffix that names the format, because `path` may be a temporary name.
    """
    writers = {".csv": _csv_writer, ".parquet": _parquet_writer, ".npz": _npz_writer}
    with writers[form.lower()](path, columns, count) as write:
        yield write


def read_table(path: Path, columns: Sequence[Column]) -> Iterator[Piece]:
    """These columns of a table, in pieces. Raises ValueError if one is missing, or the file is damaged."""
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    try:
        yield from readers[path.suffix.lower()](path, columns)
    except Exception as error:  # a damaged file can raise any exception
        raise ValueError(f"{path} is not a table with {_listed(columns)}, or is damaged ({error})") from None


def is_intact(path: Path) -> bool:
    """Whether all parts of an .npz file fit their checksums, which zip files have."""
    try:
        with zipfile.ZipFile(path) as parts:
            return parts.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError):
        return False


def _listed(columns: Sequence[Column]) -> str:
    names = [f"{column.width} {column.name}" if column.kind == "vector" else column.name for column in columns]
    return ", ".join(names)


@contextlib.contextmanager
def _csv_writer(path: Path, columns: Sequence[Column], count: int) -> Iterator[Callable[[Piece], None]]:
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(",".join(heading for column in columns for heading in column.headings) + "\n")

        def write(piece: Piece) -> None:
            parts = [_csv_cells(column, piece[column.name]) for column in columns]
            file.writelines(",".join(itertools.chain(*row)) + "\n" for row in zip(*parts, strict=True))

        yield write


def csv_text(text: str) -> str:
    """Text as a cell of a .csv. Python's writer leaves carriage returns without quotes if lines end as they do here."""
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text


def _csv_cells(column: Column, values: np.ndarray) -> list[list[str]]:
    """The cells of a column, row by row; nine digits restore a float32 exactly."""
    if column.kind == "vector":
        return [[f"{number:.9g}" for number in row] for row in values.tolist()]
    return [[f"{value:.9g}" if column.kind == "number" else csv_text(str(value))] for value in values.tolist()]


def _read_csv(path: Path, columns: Sequence[Column]) -> Iterator[Piece]:
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file, strict=True)
        heading = next(reader, [])
        places = {name: place for place, name in enumerate(heading)}
        wanted = [[places[name] for name in column.headings] for column in columns]
        while rows := list(itertools.islice(reader, ROWS)):
            if any(len(row) != len(heading) for row in rows):
                raise ValueError("a line has another number of cells")
            yield {
                column.name: column.array([[row[place] for place in where] for row in rows])
                if column.kind == "vector"
                else column.array([row[where[0]] for row in rows])
                for column, where in zip(columns, wanted, strict=True)
            }


@contextlib.contextmanager
def _parquet_writer(path: Path, columns: Sequence[Column], count: int) -> Iterator[Callable[[Piece], None]]:
    arrow = _pyarrow()
    kinds = {"text": arrow.string(), "integer": arrow.int64(), "number": arrow.float32()}
    types = [
        arrow.list_(arrow.float32(), column.width) if column.kind == "vector" else kinds[column.kind]
        for column in columns
    ]
    schema = arrow.schema([(column.name, kind) for column, kind in zip(columns, types, strict=True)])
    with arrow.parquet.ParquetWriter(str(path), schema) as writer:

        def write(piece: Piece) -> None:
            arrays = [
                arrow.FixedSizeListArray.from_arrays(arrow.array(piece[column.name].reshape(-1)), column.width)
                if column.kind == "vector"
                else arrow.array(piece[column.name].tolist(), type=kind)
                for column, kind in zip(columns, types, strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))

        yield write


def _read_parquet(path: Path, columns: Sequence[Column]) -> Iterator[Piece]:
    arrow = _pyarrow()
    with arrow.parquet.ParquetFile(str(path)) as file:
        for batch in file.iter_batches(batch_size=ROWS, columns=[column.name for column in columns]):
            yield {
                column.name: column.array(
                    batch.column(column.name).flatten().to_numpy()
                    if column.kind == "vector"
                    else batch.column(column.name).to_pylist()
                )
                for column in columns
            }


@contextlib.contextmanager
def _npz_writer(path: Path, columns: Sequence[Column], count: int) -> Iterator[Callable[[Piece], None]]:
    """Vectors are written as they come, so that they never are in memory at once; the other columns at the end."""
    vectors = [column for column in columns if column.kind == "vector"]
    assert len(vectors) <= 1, "one member of a zip file is open at a time"
    rest: dict[str, list[np.ndarray]] = {column.name: [] for column in columns if column.kind != "vector"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with contextlib.ExitStack() as stack:
            member: IO[bytes] | None = None
            for column in vectors:
                member = stack.enter_context(archive.open(f"{column.name}.npy", "w", force_zip64=True))
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, column.width)}
                np.lib.format.write_array_header_2_0(member, header)

            def write(piece: Piece) -> None:
                for column in columns:
                    if column.kind != "vector":
                        rest[column.name].append(piece[column.name])
                    elif member is not None:
                        member.write(np.ascontiguousarray(piece[column.name], dtype="<f4").tobytes())

            yield write
        for column in columns:
            if column.kind != "vector":
                with archive.open(f"{column.name}.npy", "w", force_zip64=True) as file:
                    values = np.concatenate([column.array([]), *rest[column.name]])
                    np.lib.format.write_array(file, values, allow_pickle=False)


class _Member(NamedTuple):
    """An array in an archive, opened behind its header."""

    file: zipfile.ZipExtFile
    shape: tuple[int, ...]
    kind: np.dtype


def _read_npz(path: Path, columns: Sequence[Column]) -> Iterator[Piece]:
    with zipfile.ZipFile(path) as archive, contextlib.ExitStack() as stack:
        members = {column.name: _member(archive, stack, column) for column in columns}
        counts = {member.shape[0] for member in members.values()}
        if len(counts) != 1:
            raise ValueError("its columns have different lengths")
        for start in range(0, counts.pop(), ROWS):
            yield {column.name: column.array(_rows(members[column.name], start)) for column in columns}


def _member(archive: zipfile.ZipFile, stack: contextlib.ExitStack, column: Column) -> _Member:
    """The array of a column. Raises ValueError if it is compressed, or not what its header and the column claim."""
    info = archive.getinfo(f"{column.name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError("it is compressed")
    file: Any = stack.enter_context(archive.open(info))
    shape, columns_first, kind = npy_header(file)
    kinds = {"text": "U", "integer": "i", "number": "f", "vector": "f"}
    expected = (*shape[:1], column.width) if column.kind == "vector" else shape[:1]
    if columns_first or kind.kind != kinds[column.kind] or not shape or shape != expected:
        raise ValueError(f"{column.name} holds {kind} of shape {shape}")
    if math.prod(shape) * kind.itemsize != info.file_size - file.tell():
        raise ValueError(f"{column.name} claims another number of values than it holds")
    return _Member(file, shape, kind)


def _rows(member: _Member, start: int) -> np.ndarray:
    """The next piece of an array of which `start` rows have been read."""
    shape = (min(ROWS, member.shape[0] - start), *member.shape[1:])
    return np.frombuffer(member.file.read(math.prod(shape) * member.kind.itemsize), member.kind).reshape(shape)
