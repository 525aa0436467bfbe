"""What a data set of images is, and the plain kinds: an array, a folder of files, chosen images of another set.

A data set loads uint8 images one at a time and never hides a bad file: `load` raises CorruptImage, and readers leave
the file out and add it to `skipped`.

Letters: n images, c channels, h height, w width.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mage import array_files, images, rng
from mage.data.epoch_order import Locality

Labels = Int64[np.ndarray, " n"]
SIZED = 1000
"""Largest number of files whose sizes are compared."""


def readable_name(path: str) -> str:
    """The name of a file as text that can be written: bytes that are not UTF-8 as backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class CorruptImage(ValueError):
    """The file `path` cannot be read as an image."""

    def __init__(self, path: str, reason: str = "", listed: str = "") -> None:
        """reason: in a few words, "" if it is not known. listed: what `skipped` and warnings name, if not the file: the
        shard of which no image can be read."""
        path, listed = readable_name(path), readable_name(listed or path)
        super().__init__(path, reason, listed)
        self.path, self.reason, self.listed = path, reason, listed

    @classmethod
    def of(cls, path: str, error: Exception) -> "CorruptImage":
        """With the reason that reading `path` gave."""
        reason = str(error).removesuffix(f": {path}").replace(path, "it")
        return cls(path, error.problem if isinstance(error, images.Unreadable) else reason)

    def __str__(self) -> str:
        return f"cannot read {self.path} as an image" + (f" ({self.reason})" if self.reason else "")


@runtime_checkable
class ImageDataset(Protocol):
    """Images with or without labels."""

    name: str
    """Name for messages; data sets with different images have different names."""
    class_names: tuple[str, ...]
    """Empty if there are no labels."""
    labels: Labels | None
    """Index of every image's class in `class_names`."""
    skipped: list[str]
    """Files that could not be read, each once."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Image `index`. Raises CorruptImage."""


@runtime_checkable
class HasFiles(Protocol):
    """A data set of image files."""

    channels: int
    """1 for grey, 3 for RGB."""

    def file_bytes(self, index: int) -> bytes:
        """The file of image `index`. Raises CorruptImage."""


@runtime_checkable
class Reducible(Protocol):
    """A data set whose large images can be read smaller."""

    def load_reduced(self, index: int, at_least: int) -> UInt8[Tensor, "c h w"]:
        """Image `index`, as a whole or at a half, a quarter or an eighth of its size. Raises CorruptImage.

        at_least: pixels that both sides keep; 0: as it is.
        """


def load_reduced(dataset: ImageDataset, index: int, at_least: int) -> UInt8[Tensor, "c h w"]:
    """The same for any data set; those that are not reducible, or whose class replaced `load`, give the whole image."""
    if at_least and isinstance(dataset, Reducible):
        owner = next(kind for kind in type(dataset).__mro__ if {"load", "load_reduced"} & vars(kind).keys())
        if "load_reduced" in vars(owner):
            return dataset.load_reduced(index, at_least)
    return dataset.load(index)


def content_of(dataset: ImageDataset) -> str:
    """A short string that identifies a data set's content, wherever it is stored: the key of caches and runs."""
    return str(getattr(dataset, "content", dataset.name))


def locality_of(dataset: ImageDataset) -> Locality | None:
    """Which images lie near each other; None if that makes no difference."""
    locality: Locality | None = getattr(dataset, "locality", None)
    return locality


@dataclass
class ArrayDataset:
    """Images of one size, in memory."""

    name: str
    array: UInt8[Tensor, "n c h w"]
    labels: Labels | None
    class_names: tuple[str, ...] = ()
    channels: int | None = None
    """1 or 3 to convert each image as it is loaded; None: as in the array."""
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.array)

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """A copy of image `index`."""
        image = self.array[index].clone()
        return image if self.channels is None else images.with_channels(image, self.channels)


@dataclass
class FolderDataset:
    """Image files of any size below one folder, read on access."""

    name: str
    root: Path
    files: np.ndarray
    """Names relative to `root`, as one array of bytes, because a million strings would be copied to every worker."""
    labels: Labels | None
    class_names: tuple[str, ...]
    channels: int
    skipped: list[str] = field(default_factory=list)

    @property
    def content(self) -> str:
        """Hash of the file names below the folder; it does not depend on the folder's own name."""
        return digest(self.files.tobytes())

    def __len__(self) -> int:
        return len(self.files)

    def file_name(self, index: int) -> str:
        """Name of file `index`, relative to `root`, as `readable_name`."""
        return readable_name(os.fsdecode(bytes(self.files[index])))

    def names(self) -> list[str]:
        """Names of all files, relative to `root`."""
        return [self.file_name(index) for index in range(len(self))]

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Image `index`. Raises CorruptImage."""
        return self.load_reduced(index, 0)

    def load_reduced(self, index: int, at_least: int) -> UInt8[Tensor, "c h w"]:
        """The same; a large JPEG file is read smaller."""
        try:
            return images.load_image(self._path(index), self.channels, at_least=at_least)
        except ValueError as error:
            raise CorruptImage.of(str(self._path(index)), error) from None

    def file_bytes(self, index: int) -> bytes:
        """The file of image `index`. Raises CorruptImage."""
        try:
            array_files.regular_size(self._path(index))
            return self._path(index).read_bytes()
        except (OSError, ValueError) as error:
            raise CorruptImage.of(str(self._path(index)), error) from None

    def file_size(self, index: int) -> int:
        """Bytes of file `index`; -1 if it is gone."""
        try:
            return self._path(index).stat().st_size
        except OSError:
            return -1

    def _path(self, index: int) -> Path:
        return self.root / os.fsdecode(bytes(self.files[index]))


class Subset:
    """Chosen images of another data set, in a given order; `skipped` is shared by both."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int]) -> None:
        self.indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(self.indices) and not 0 <= self.indices.min() <= self.indices.max() < len(dataset):
            low, high = int(self.indices.min()), int(self.indices.max())
            raise ValueError(f"{dataset.name} has images 0 to {len(dataset) - 1}; the subset has {low} to {high}")
        self.dataset, self.class_names, self.skipped = dataset, dataset.class_names, dataset.skipped
        chosen = digest(self.indices.tobytes())
        self.name, self.content = f"{dataset.name}-{chosen}", f"{content_of(dataset)}-{chosen}"
        self.labels = None if dataset.labels is None else dataset.labels[self.indices]
        whole = locality_of(dataset)
        self.locality = None if whole is None else whole._replace(shard=whole.shard[self.indices])

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Image `index` of the subset. Raises CorruptImage."""
        return self.dataset.load(int(self.indices[index]))

    def load_reduced(self, index: int, at_least: int) -> UInt8[Tensor, "c h w"]:
        """The same, read smaller where the data set can."""
        return load_reduced(self.dataset, int(self.indices[index]), at_least)


def file_of(dataset: ImageDataset, index: int) -> tuple[bytes, int] | None:
    """The file of an image and the channels it is read with, of data sets of files. Raises CorruptImage."""
    if isinstance(dataset, Subset):
        return file_of(dataset.dataset, int(dataset.indices[index]))
    return (dataset.file_bytes(index), dataset.channels) if isinstance(dataset, HasFiles) else None


def sizes_of(dataset: ImageDataset) -> str | None:
    """Hash of the sizes of up to SIZED files, spread over a data set; None for data that are not files of a folder.

    Names are the content of a folder (`content_of`); the sizes tell whether its files were changed meanwhile.
    """
    sizes = [_size_of(dataset, index) for index in spread(len(dataset), SIZED)]
    return None if None in sizes else digest(repr(sizes).encode())


def _size_of(dataset: ImageDataset, index: int) -> int | None:
    if isinstance(dataset, Subset):
        return _size_of(dataset.dataset, int(dataset.indices[index]))
    return dataset.file_size(index) if isinstance(dataset, FolderDataset) else None


def digest(data: bytes) -> str:
    """Eight hexadecimal digits that identify `data`."""
    return hashlib.sha256(data).hexdigest()[:8]


def spread(total: int, most: int) -> list[int]:
    """At most `most` of `total` indices, in order: a random one of each of as many equal parts, always the same ones.

    The parts, because data sets may be sorted by class; random, because in others the classes come in turn.
    """
    count = min(total, most)
    starts = torch.arange(count + 1) * total // max(1, count)
    shares = torch.rand(count, generator=rng.generator(0, "spread"), dtype=torch.float64)
    return (starts[:-1] + (shares * starts.diff()).long()).tolist()


def evenly(dataset: ImageDataset, most: int) -> ImageDataset:
    """At most `most` images, spread over the data set."""
    return Subset(dataset, spread(len(dataset), most))
