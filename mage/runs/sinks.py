"""Where many generated images go: a folder of PNG files, tar shards, or no further than a metric's features.

Images arrive in units of consecutive numbers; a unit appears on disk whole or not at all, which is what makes a long
job resumable.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mage import atomic, images
from mage.data.tar_images import TarDataset, write_shard
from mage.evaluation.extractors import Extractor, Seen


@runtime_checkable
class Sink(Protocol):
    """Where finished images go."""

    unit: int
    """Images that appear together."""

    def has(self, numbers: range) -> bool:
        """Whether these images are there."""

    def write(self, numbers: range, batches: Iterator[Tensor]) -> None:
        """Take the images in [0, 1] of one unit, batch by batch."""

    def close(self) -> None:
        """Wait until everything is on disk."""


class PngFolder:
    """FOLDER/000000.png, ...; files are written by two threads while the next batch is made."""

    def __init__(self, folder: Path, unit: int) -> None:
        self.folder, self.unit = folder, unit
        self._writers = ThreadPoolExecutor(2)
        self._waiting: list[Future[None]] = []

    def path(self, number: int) -> Path:
        """The file of an image."""
        return self.folder / f"{number:06d}.png"

    def has(self, numbers: range) -> bool:
        """Whether all of these files are there."""
        return all(self.path(number).is_file() for number in numbers)

    def write(self, numbers: range, batches: Iterator[Tensor]) -> None:
        """Write; at most one unit waits, however many are made."""
        found = [image for batch in batches for image in batch]
        self._finish()
        self._waiting = [
            self._writers.submit(images.save_png, self.path(number), image)
            for number, image in zip(numbers, found, strict=True)
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
    """FOLDER/000000.tar, ...: shards of PNG files, and .cls files where classes were asked for."""

    def __init__(self, folder: Path, unit: int, class_of: Callable[[int], str | None]) -> None:
        """class_of: what is written beside image k; None: nothing."""
        self.folder, self.unit, self._class_of = folder, unit, class_of

    def path(self, numbers: range) -> Path:
        """The shard that begins with these images."""
        return self.folder / f"{numbers.start:06d}.tar"

    def has(self, numbers: range) -> bool:
        """Whether the shard is there and complete: a last, shorter one is made again when more images are wanted."""
        path = self.path(numbers)
        return path.is_file() and len(TarDataset.open_files([path])) >= len(numbers)

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
        """Nothing waits."""


class FeatureShards:
    """FOLDER/features-000000.npz, ...: what the extractor of a metric makes of the images, which are not kept."""

    def __init__(self, folder: Path, unit: int, extractor: Extractor, rounding: images.Rounding = "nearest") -> None:
        """rounding: how images become 8 bits."""
        self.folder, self.unit, self.extractor, self.rounding = folder, unit, extractor, rounding

    def path(self, numbers: range) -> Path:
        """The file that begins with these images."""
        return self.folder / f"features-{numbers.start:06d}.npz"

    def has(self, numbers: range) -> bool:
        """Whether the file is there and complete."""
        path = self.path(numbers)
        return path.is_file() and len(_read_features(path)[1].features) >= len(numbers)

    def write(self, numbers: range, batches: Iterator[Tensor]) -> None:
        """Look at the images as 8 bits and write what was seen."""
        seen = [self.extractor(images.to_uint8(batch, self.rounding)) for batch in batches]
        arrays = {"features": torch.cat([part.features for part in seen]).float().cpu().numpy()}
        if seen[0].logits is not None:
            arrays["logits"] = torch.cat([part.logits for part in seen if part.logits is not None]).cpu().numpy()
        name = np.array(self.extractor.fingerprint)
        with atomic.replacing(self.path(numbers)) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, extractor=name, **arrays)

    def close(self) -> None:
        """Nothing waits."""


def first_images(folder: Path, count: int) -> list[Tensor]:
    """The first images of a folder, in [0, 1]; none where they are not all there, as of features."""
    if any(folder.glob("*.tar")):
        shards = TarDataset.open(folder)
        return [images.to_float(shards.load(number)) for number in range(min(count, len(shards)))]
    paths = [folder / f"{number:06d}.png" for number in range(count)]
    return [images.to_float(images.load_image(path)) for path in paths] if all(map(Path.is_file, paths)) else []


def feature_files(folder: Path) -> list[Path]:
    """Files of `FeatureShards` in a folder, in order."""
    return sorted(folder.glob("features-[0-9]*.npz"))


def read_features(paths: Sequence[Path], extractor: str) -> Iterator[Seen]:
    """What an extractor saw, unit by unit. Raises ValueError for another extractor's or a gap."""
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
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            logits = torch.from_numpy(data["logits"]) if "logits" in data else None
            return str(data["extractor"]), Seen(torch.from_numpy(data["features"]), logits)
    except Exception as error:  # what a damaged file raises is anybody's guess
        raise ValueError(f"{path} holds no features ({type(error).__name__})") from None
