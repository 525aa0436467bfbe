"""A table with a row per image, computed in pieces: a stopped run goes on, and images that have a row are left out.

Finished pieces lie in the folder TABLE.parts beside the table until it is complete; TABLE.json says how it was made.
An image has a row if its name, size and time are those of the row, whatever the file contains: renamed and touched
files are computed again, and rows of files that are gone are dropped. Labels are those of today, because a new folder
can change the label of an old image. In memory are the versions of all images, and the rows of a few pieces.
"""

import contextlib
import json
import logging
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mage import atomic, checksums, images, locks
from mage.array_files import regular_size
from mage.data.datasets import Subset
from mage.data.loaders import NoneReadable, evaluation_batches
from mage.data.named_images import MISSING, NamedImages
from mage.data.transforms import TransformConfig, build_transform
from mage.runs.table_files import ROWS, Column, Piece, check_format, is_intact, read_table, table_writer
from mage.settings import differences

logger = logging.getLogger(__name__)

PIECE_ROWS = 4 * ROWS
"""Largest number of rows of a piece on disk."""
PIECE_SECONDS = 60.0
"""A piece is written when its oldest row is so old: a killed run loses a minute."""
PIECES_IN_MEMORY = 8
IDENTITY = (Column("file", "text"), Column("label", "text"), Column("size", "integer"), Column("modified", "integer"))
"""First columns of every table: name, sub-folder, bytes, nanoseconds since 1970."""
MOST_BYTES = 2**26
"""Largest size of TABLE.json."""


@dataclass(frozen=True)
class Table:
    """What a run has written."""

    out: Path
    images: int
    """Rows of the table."""
    computed: int
    """Rows that this run has computed; the others were there."""
    skipped: tuple[str, ...]
    """Files that cannot be read as images."""


@dataclass(frozen=True)
class RowWork:
    """How rows are computed."""

    columns: Sequence[Column]
    """Columns of the result, which follow those of IDENTITY."""
    key: Mapping[str, Any]
    """What the rows depend on: a table of another key is not continued."""
    transform: TransformConfig
    compute: Callable[[Float[Tensor, "n c h w"]], Piece]
    """Images in [0, 1], cut to size -> the columns of the result."""


def write_rows(
    source: NamedImages,
    out: Path,
    work: RowWork,
    *,
    batch_size: int = 256,
    workers: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> Table:
    """Write a row for every readable image, in the order of the names. Raises ValueError.

    on_images: called with the number of images that are done, those of earlier runs at once.
    """
    with locks.file_lock(out):
        return _write_rows(source, out, work, batch_size, workers, on_images)


def _write_rows(
    source: NamedImages,
    out: Path,
    work: RowWork,
    batch_size: int,
    workers: int,
    on_images: Callable[[int], None] | None,
) -> Table:
    check_table(out, work.key)
    pieces = _Pieces(out, [*IDENTITY, *work.columns])
    try:
        pieces.begin(work.key)
        versions = np.array([source.version(index) for index in range(len(source))], dtype=np.int64).reshape(-1, 2)
        places = pieces.find(source, versions)
        todo = np.flatnonzero(places < 0)
        if on_images is not None:
            on_images(len(source) - len(todo))
        if len(todo):
            _compute(source, todo, versions, work, pieces, min(batch_size, PIECE_ROWS), workers, on_images)
            places = pieces.find(source, versions)
        rows = np.flatnonzero(places >= 0)
        # before the table, so that there is no table without it
        values = {**work.key, "images": len(rows), "skipped": list(source.skipped)}
        atomic.write_json(_key_file(out), checksums.sealed(values))
        pieces.join(source, rows, places[rows])
    except BaseException:
        pieces.leave()
        raise
    return Table(out, len(rows), len(np.intersect1d(todo, rows)), tuple(source.skipped))


def check_table(out: Path, key: Mapping[str, Any]) -> None:
    """Raise ValueError if `out` cannot be written, or holds something else than a table of the same key."""
    check_format(out)
    if not out.exists():
        return
    if not _key_file(out).is_file():
        raise ValueError(
            f"{out} exists and {_key_file(out).name}, which says how it was made, does not: choose another name"
        )
    _check_key(out, _read_key(_key_file(out)), key)


def precision_in(out: Path) -> str | None:
    """The precision of the rows of a table, or of its finished pieces; None if there are none."""
    for path in (*([_key_file(out)] if out.exists() else []), _Pieces(out, ()).mark):
        with contextlib.suppress(OSError, ValueError, KeyError):  # told when the table is continued
            return str(_read_key(path)["precision"])
    return None


def _check_key(out: Path, found: Mapping[str, Any], key: Mapping[str, Any]) -> None:
    others = differences(dict(key), {name: found.get(name) for name in key})
    if others:
        raise ValueError(f"{out} was made otherwise ({'; '.join(others[:3])}): choose another name, or delete it")


def _key_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


def _read_key(path: Path) -> dict[str, Any]:
    try:
        if regular_size(path) > MOST_BYTES:
            raise ValueError
        values = checksums.unsealed(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{path} does not say how a table was made: choose another name, or delete it with its table")
    return values


def _compute(
    source: NamedImages,
    todo: np.ndarray,
    versions: np.ndarray,
    work: RowWork,
    pieces: "_Pieces",
    batch_size: int,
    workers: int,
    on_images: Callable[[int], None] | None,
) -> None:
    """Compute the rows of the images `todo` and write them as pieces, also if this is interrupted."""
    waiting: list[Piece] = []
    started = time.monotonic()
    batches = evaluation_batches(
        Subset(source, todo.tolist()), build_transform(work.transform), batch_size=batch_size, num_workers=workers
    )
    try:
        for batch in batches:
            chosen = todo[batch["index"].numpy()].tolist()
            identity = {
                "file": [source.file(index) for index in chosen],
                "label": [source.label(index) for index in chosen],
                "size": versions[chosen, 0],
                "modified": versions[chosen, 1],
            }
            computed = identity | work.compute(images.to_float(batch["images"]))
            waiting.append({column.name: column.array(computed[column.name]) for column in pieces.columns})
            full = sum(len(part["file"]) for part in waiting) + batch_size > PIECE_ROWS
            if full or time.monotonic() - started > PIECE_SECONDS:
                pieces.add(waiting)
                waiting, started = [], time.monotonic()
            if on_images is not None:
                on_images(len(chosen))
    except NoneReadable:
        if len(todo) == len(source):
            raise  # else the new files are unreadable, but there are rows of others
    finally:
        pieces.add(waiting)


class _Pieces:
    """The pieces of a table, as .npz files in a folder beside it."""

    def __init__(self, out: Path, columns: Sequence[Column]) -> None:
        self.out, self.columns = out, columns
        self.folder = out.with_name(f"{out.name}.parts")
        self.mark = self.folder / "key.json"
        self._loaded: OrderedDict[int, Piece] = OrderedDict()

    def begin(self, key: Mapping[str, Any]) -> None:
        """Open the folder; pieces of another key are refused. An older table becomes the first pieces."""
        if self.mark.is_file():
            _check_key(self.folder, _read_key(self.mark), key)
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(self.mark, checksums.sealed(key))
        for path in self.folder.glob("*.npz"):
            if not is_intact(path):
                logger.warning("%s was damaged: its rows are computed again", path)
                path.unlink()
        if self.out.exists():
            for number, piece in enumerate(read_table(self.out, self.columns)):
                self._write(f"old-{number:06d}.npz", [piece])

    def add(self, parts: Sequence[Piece]) -> None:
        """Write rows as the next piece."""
        if parts:
            numbers = [int(path.stem.removeprefix("piece-")) for path in self.folder.glob("piece-*.npz")]
            self._write(f"piece-{max(numbers, default=-1) + 1:06d}.npz", parts)

    def leave(self) -> None:
        """Delete the folder if no row was computed, because it then holds copies alone."""
        if not any(self.folder.glob("piece-*.npz")):
            shutil.rmtree(self.folder, ignore_errors=True)

    def find(self, source: NamedImages, versions: np.ndarray) -> np.ndarray:
        """Where the row of each image is: number of its piece times PIECE_ROWS, plus the row; -1 if there is none."""
        numbers = {source.file(index): index for index in range(len(source))}
        places = np.full(len(source), -1, dtype=np.int64)
        self._loaded.clear()
        self._files = sorted(self.folder.glob("*.npz"))
        for part, path in enumerate(self._files):
            offset = part * PIECE_ROWS
            for piece in read_table(path, IDENTITY):
                for row, file in enumerate(piece["file"].tolist()):
                    index = numbers.get(file, -1)
                    version = (int(piece["size"][row]), int(piece["modified"][row]))
                    if index >= 0 and version != MISSING and version == tuple(versions[index].tolist()):
                        places[index] = offset + row
                offset += len(piece["file"])
        return places

    def join(self, source: NamedImages, rows: np.ndarray, places: np.ndarray) -> None:
        """Write the rows of the images `rows`, which are at `places`, as the table, and delete the pieces."""
        with (
            atomic.replacing(self.out) as temporary,
            table_writer(temporary, self.out.suffix, self.columns, len(places)) as write,
        ):
            for start in range(0, len(places), ROWS):
                labels = [source.label(index) for index in rows[start : start + ROWS].tolist()]
                write(self._gather(places[start : start + ROWS]) | {"label": IDENTITY[1].array(labels)})
        shutil.rmtree(self.folder, ignore_errors=True)

    def _gather(self, places: np.ndarray) -> Piece:
        """Rows at `places`, from each piece at once."""
        parts = places // PIECE_ROWS
        gathered: dict[str, list[np.ndarray]] = {column.name: [] for column in self.columns}
        order = np.argsort(parts, kind="stable")
        for part in np.unique(parts).tolist():
            piece = self._piece(part)
            for column in self.columns:
                gathered[column.name].append(piece[column.name][places[parts == part] % PIECE_ROWS])
        back = np.argsort(order, kind="stable")
        return {name: np.concatenate(values)[back] for name, values in gathered.items()}

    def _piece(self, part: int) -> Piece:
        if part not in self._loaded:
            pieces = list(read_table(self._files[part], self.columns))
            self._loaded[part] = {
                column.name: np.concatenate([piece[column.name] for piece in pieces]) for column in self.columns
            }
            if len(self._loaded) > PIECES_IN_MEMORY:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(part)
        return self._loaded[part]

    def _write(self, name: str, parts: Sequence[Piece]) -> None:
        count = sum(len(part["file"]) for part in parts)
        with (
            atomic.replacing(self.folder / name) as temporary,
            table_writer(temporary, ".npz", self.columns, count) as write,
        ):
            for part in parts:
                write(part)
