"""Writing tar shards of images, with the index of each beside it.

Images are written in a random order, so that a few shards are a fair sample of all; the same images, size and seed
give the same bytes. JPEG, PNG and other files are copied as they are; images without a file become PNG. An image with a
class or a file name has a member KEY.json with them: {"file": "cats/1.jpg", "label": "cat"}.
"""

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mage import atomic, images, locks, rng
from mage.data.image_sets import CorruptImage, FolderDataset, ImageDataset, content_of, sizes_of
from mage.data.shard_index import BESIDE, SUFFIXES, make_index, split_name
from mage.data.storage import look_at
from mage.data.tar_images import TarDataset
from mage.data.tar_members import BLOCK
from mage.settings import from_dict, to_dict

JOURNAL = "shards.json"
UNITS = {"": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
LEAST_BYTES = 10_000


@dataclass(frozen=True)
class WrittenShards:
    """What a folder of shards holds, and what it was made from; kept in it as shards.json."""

    content: str
    """Of the data set."""
    most_bytes: int
    """Size that a shard does not exceed, unless it holds a single image."""
    seed: int
    """Seed of the order."""
    shards: tuple[str, ...] = ()
    """Names of the finished shards."""
    places: int = 0
    """Places of the order that are in them."""
    images: int = 0
    """Images in them."""
    skipped: tuple[str, ...] = ()
    """Files that could not be read."""
    complete: bool = False
    sizes: str | None = None
    """Of the files (`sizes_of`); None for data that are not files, and in folders written by earlier versions."""


def write_shard(path: str | Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write named files into a tar, and its index beside it, atomically; the same files give the same bytes."""
    index = Path(f"{path}{BESIDE}")
    index.unlink(missing_ok=True)  # of an older shard of this name
    with atomic.replacing(path) as temporary, tarfile.open(temporary, "w") as shard:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))
    images_in(path)


def images_in(path: str | Path) -> int:
    """The number of images in a shard; the index beside it is written if it is missing. Raises BrokenFile."""
    index, beside = make_index(look_at(str(path))), Path(f"{path}{BESIDE}")
    if not beside.is_file():
        atomic.write_text(beside, index.to_json())
    return len(index.names)


def write_shards(
    dataset: ImageDataset,
    out: Path,
    *,
    prefix: str,
    most_bytes: int,
    seed: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> WrittenShards:
    """Write a data set as OUT/PREFIX-000000.tar and so on; finished shards of a stopped call are kept.

    most_bytes: size of a shard. on_images: called with the number of images done since the last call.
    Raises ValueError for a folder that holds something else, or into which another process writes.
    """
    if most_bytes < LEAST_BYTES:
        raise ValueError(f"a shard of {most_bytes:,} bytes is too small: give at least {LEAST_BYTES:,}, such as 500MB")
    if out.is_file():
        raise ValueError(f"{out} is a file: choose a folder")
    _check_place(out)  # before a lock is written there
    with locks.run_lock(out):
        return _write(dataset, out, prefix, most_bytes, seed, on_images)


def _write(
    dataset: ImageDataset, out: Path, prefix: str, most_bytes: int, seed: int, on_images: Callable[[int], None] | None
) -> WrittenShards:
    written = _begin(out, WrittenShards(content_of(dataset), most_bytes, seed, sizes=sizes_of(dataset)))
    report = on_images or (lambda count: None)
    report(written.places)
    if written.complete:
        return written
    order = torch.randperm(len(dataset), generator=rng.generator(seed, "shards")).tolist()
    waiting = _Pending(dataset, order, written.places)
    while waiting.left():
        files, images_in, skipped = waiting.take(most_bytes, report)
        if images_in:
            name = f"{prefix}-{len(written.shards):06d}.tar"
            write_shard(out / name, files)
            written = replace(written, shards=(*written.shards, name), images=written.images + images_in)
        written = replace(written, places=waiting.place, skipped=written.skipped + tuple(skipped))
        atomic.write_json(out / JOURNAL, to_dict(written))
    if not written.images:
        raise ValueError(f"none of the {len(dataset)} images of {dataset.name} could be read")
    written = replace(written, complete=True)
    atomic.write_json(out / JOURNAL, to_dict(written))
    return written


class _Pending:
    """The images that are still to be written, in order."""

    def __init__(self, dataset: ImageDataset, order: list[int], place: int) -> None:
        self._dataset, self._order, self.place = dataset, order, place

    def left(self) -> bool:
        """Whether there are further images."""
        return self.place < len(self._order)

    def take(self, most_bytes: int, report: Callable[[int], None]) -> tuple[list[tuple[str, bytes]], int, list[str]]:
        """Files of the next shard, the number of its images, and what could not be read."""
        files: list[tuple[str, bytes]] = []
        count, size, skipped = 0, 2 * BLOCK, list[str]()
        while self.left():
            try:
                members = list(_members(self._dataset, self._order[self.place]))
            except CorruptImage as error:
                skipped.append(error.path)
                members = []
            taken = sum(BLOCK + -(-len(data) // BLOCK) * BLOCK for _, data in members)
            if members and count and size + taken > most_bytes:
                break
            self.place += 1
            report(1)
            files += members
            size, count = size + taken, count + bool(members)
        return files, count, skipped


def _check_place(out: Path) -> None:
    """Raise ValueError for a folder that holds something else than shards of this command."""
    if not (out / JOURNAL).is_file() and not atomic.is_empty(out):
        raise ValueError(f"{out} is not empty, and holds no {JOURNAL}: choose another folder")


def _begin(out: Path, wanted: WrittenShards) -> WrittenShards:
    """What is in the folder by now. Raises ValueError for anything else than shards of the same images."""
    _check_place(out)
    journal = out / JOURNAL
    if not journal.is_file():
        return wanted
    try:
        found = from_dict(WrittenShards, json.loads(journal.read_text()))
    except (ValueError, RecursionError):
        raise ValueError(f"{journal} is damaged: choose another folder, or delete this one") from None
    for name in ("content", "most_bytes", "seed"):
        if getattr(found, name) != getattr(wanted, name):
            raise ValueError(
                f"{out} holds shards with {name} {getattr(found, name)!r}, not {getattr(wanted, name)!r}: "
                "choose another folder, or delete this one"
            )
    if found.sizes not in (None, wanted.sizes):
        raise ValueError(
            f"{out} holds shards of images whose files have changed since: choose another folder, or delete this one"
        )
    atomic.clear(out)
    gone = [name for name in found.shards if not (out / name).is_file()]
    if gone:
        raise ValueError(f"{out} lacks {gone[0]}, which {JOURNAL} lists: delete this folder, and write it again")
    return found


def _members(dataset: ImageDataset, index: int) -> Iterator[tuple[str, bytes]]:
    """Files of an image. Raises CorruptImage."""
    image = dataset.load(index)  # also of files that are copied, so that no shard holds an unreadable one
    suffix, data, file = "png", b"", ""
    if isinstance(dataset, FolderDataset):
        file = dataset.file_name(index)
        suffix = file.rpartition(".")[2].lower()
        data = dataset.file_bytes(index) if suffix in SUFFIXES else b""
    elif isinstance(dataset, TarDataset):
        file = dataset.file_name(index)
        suffix, data = split_name(file)[1], dataset.file_bytes(index)
    if not data:
        if len(image) not in images.PIL_MODES:
            raise ValueError(f"images of {len(image)} channels are no PNG: shards hold grey or RGB images")
        suffix, data = "png", images.png_bytes(images.to_float(image))
    yield f"{index:09d}.{suffix}", data
    facts = {"file": file} if file else {}
    if dataset.labels is not None:
        number = int(dataset.labels[index])
        facts["label"] = dataset.class_names[number] if dataset.class_names else str(number)
    if facts:
        yield f"{index:09d}.json", json.dumps(facts, sort_keys=True).encode()


def parse_bytes(text: str) -> int:
    """The number of bytes in "500MB", "1.5 GB", "64MiB". Raises ValueError."""
    found = re.fullmatch(rf"(\d{{1,12}}(?:\.\d{{1,3}})?) ?({'|'.join(UNITS)})", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size: write a number and a unit, such as 500MB, 2GB or 64MiB")
    return round(float(found[1]) * UNITS[found[2]])
