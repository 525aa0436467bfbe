"""Output formats of generated images: a folder of PNG files, tar shards, or features for the metrics.

Images are written in units of consecutive numbers, each of them atomically, so that a long job can be resumed.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mage import atomic, images
from mage.array_files import read_npz
from mage.data.shard_writer import images_in, write_shard
from mage.data.tar_images import open_shards
from mage.evaluation.extractors import Extractor, Seen

logger = logging.getLogger(__name__)


@runtime_checkable
class Sink(Protocol):
    """Writes finished images."""

    unit: int
    """Images per unit."""

    def has(self, numbers: range) -> bool:
        """Whether these images exist."""

    def write(self, numbers: range, batches: Iterator[Tensor]) -> None:
        """Write the images in [0, 1] of one unit, given batch by batch."""

    def close(self) -> None:
        """Wait until everything is on disk."""


class PngFolder:
    """FOLDER/000000.png, ...; two threads write files while the next batch is generated."""

    def __init__(self, folder: Path, unit: int) -> None:
        self.folder, self.unit = folder, unit
        self._writers = ThreadPoolExecutor(2)
        self._waiting: list[Future[None]] = []

    def path(self, number: int) -> Path:
        """Path of an image."""
        return self.folder / f"{number:06d}.png"

    def has(self, numbers: range) -> bool:
        """Whether all of these files exist."""
        return all(self.path(number).is_file() for number in numbers)

    def write(self, numbers: range, batches: Iterator[Tensor]) -> None:
        """Write one unit in the background, after waiting for the unit before."""
        pictures = [image for batch in batches for image in batch]
        self._finish()
        self._waiting = [
            self._writers.submit(images.save_png, self.path(number), image)
            for number, image in zip(numbers, pictures, strict=True)
        ]

    def close(self) -> None:
        """Wait for the last files."""
        try:
            self._finish()
        finally:
            self._writers.shutdown()

    def _finish(self) -> None:
        for file in self._waiting:
            file.result()
        self._waiting = []


class TarShards:
    """FOLDER/000000.tar, ...: shards of PNG files, with .cls files if classes are given."""

    def __init__(self, folder: Path, unit: int, class_of: Callable[[int], str | None]) -> None:
        """class_of: number of an image -> content of its .cls file; None: no such file."""
        self.folder, self.unit, self._class_of = folder, unit, class_of

    def path(self, numbers: range) -> Path:
        """The shard that begins with these images."""
        return self.folder / f"{numbers.start:06d}.tar"

    def has(self, numbers: range) -> bool:
        """Whether the shard exists and is complete; a shorter last one is written again if more images are wanted.

        A shard without its index, of a process that was killed between the two, gets it.
        """
        return _count(self.path(numbers), images_in) >= len(numbers)

    def write(self, numbers: range, batches: Iterator[Tensor]) -> None:
        """Write one shard."""

        def files() -> Iterator[tuple[str, bytes]]:
            for number, image in zip(numbers, (image for batch in batches for image in batch), strict=True):
                yield f"{number:06d}.png", images.png_bytes(image)
                name = self._class_of(number)
                if name is not None:
                    yield f"{number:06d}.cls", name.encode()

        write_shard(self.path(numbers), files())

    def close(self) -> None:
        """Nothing to wait for."""


class FeatureShards:
    """FOLDER/features-000000.npz, ...: a metric's features of the images; the images are not stored."""

    def __init__(self, folder: Path, unit: int, extractor: Extractor, rounding: images.Rounding = "nearest") -> None:
        """rounding: conversion of images to 8 bits."""
        self.folder, self.unit, self.extractor, self.rounding = folder, unit, extractor, rounding

    def path(self, numbers: range) -> Path:
        """The file that begins with these images."""
        return self.folder / f"features-{numbers.start:06d}.npz"

    def has(self, numbers: range) -> bool:
        """Whether the file exists and is complete."""
        return _count(self.path(numbers), lambda path: len(_read_features(path)[1].features)) >= len(numbers)

    def write(self, numbers: range, batches: Iterator[Tensor]) -> None:
        """Convert the images to 8 bits and write their features."""
        seen = [self.extractor(images.to_uint8(batch, self.rounding)) for batch in batches]
        arrays = {"features": torch.cat([part.features for part in seen]).float().cpu().numpy()}
        if seen[0].logits is not None:
            arrays["logits"] = torch.cat([part.logits for part in seen if part.logits is not None]).cpu().numpy()
        name = np.array(self.extractor.fingerprint)
        with atomic.replacing(self.path(numbers)) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, extractor=name, **arrays)

    def close(self) -> None:
        """Nothing to wait for."""


def _count(path: Path, count: Callable[[Path], int]) -> int:
    """The images of a shard; 0 if there is none, or it was damaged and must be made again."""
    if not path.is_file():
        return 0
    try:
        return count(path)
    except ValueError as error:
        logger.warning("%s: it is made again", error)
        return 0


def first_images(folder: Path, count: int) -> list[Tensor]:
    """The first images of a folder, in [0, 1]; none if any is missing, as in a folder of features."""
    if any(folder.glob("*.tar")):
        shards = open_shards(folder)
        return [images.to_float(shards.load(number)) for number in range(min(count, len(shards)))]
    paths = [folder / f"{number:06d}.png" for number in range(count)]
    return [images.to_float(images.load_image(path)) for path in paths] if all(map(Path.is_file, paths)) else []


def feature_files(folder: Path) -> list[Path]:
    """Files of `FeatureShards` in a folder, in order."""
    return sorted(folder.glob("features-[0-9]*.npz"))


def read_features(paths: Sequence[Path], extractor: str) -> Iterator[Seen]:
    """Features unit by unit. Raises ValueError for features of another extractor, or a gap."""
    expected = 0
    for path in paths:
        name, seen = _read_features(path)
        if name != extractor:
            raise ValueError(f"{path} holds features of {name}, not of {extractor}")
        if int(path.stem.removeprefix("features-")) != expected:
            raise ValueError(f"{path.parent} lacks image {expected}: run the command that makes them again")
        expected += len(seen.features)
        yield seen


def _read_features(path: Path) -> tuple[str, Seen]:
    try:
        data = read_npz(path)
        logits = torch.from_numpy(data["logits"]) if "logits" in data else None
        return str(data["extractor"]), Seen(torch.from_numpy(data["features"]), logits)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no features ({type(error).__name__})") from None
