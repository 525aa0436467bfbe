"""Where images come from: a few small sets by name, or any folder, from which an image is read when it is asked for.

Letters: n images, c channels, h height, w width.
"""

import functools
import gzip
import hashlib
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from mage import rng
from mage.images import load_image

Labels = Int64[np.ndarray, " n"]

SPLITS = ("train", "test")
TEST_FOLDERS = ("test", "val", "valid", "validation")
IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
UNREADABLE = (ValueError, OSError, EOFError, SyntaxError, struct.error, Image.DecompressionBombError)
HELD_OUT_SHARE = 0.1
DIGITS = tuple("0123456789")


class CorruptImage(ValueError):
    """An image file that cannot be read; `path` says which."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"cannot read {self.path} as an image"


@runtime_checkable
class ImageDataset(Protocol):
    """What loaders, caches and evaluations ask of a data set."""

    name: str
    """For people and for the keys of caches: two sets with other images have other names."""
    class_names: tuple[str, ...]
    """Empty where there are no labels."""
    labels: Labels | None
    """Index into `class_names` of every image."""
    skipped: list[str]
    """Files that turned out to be unreadable, each once; whoever reads images appends to it."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Image number `index`. Raises CorruptImage."""


class ArrayDataset:
    """Images of one size in memory, as one uint8 array."""

    def __init__(
        self,
        name: str,
        images: UInt8[np.ndarray, "n c h w"],
        labels: Labels | None,
        class_names: Sequence[str] = (),
        *,
        channels: int | None = None,
    ) -> None:
        """channels: 1 or 3 to convert each image as it is loaded, None to leave it as it is."""
        self.name, self.images, self.labels, self.class_names = name, images, labels, tuple(class_names)
        self.channels = channels or images.shape[1]
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """A copy of image number `index`."""
        image = torch.from_numpy(self.images[index].copy())
        if self.channels == len(image):
            return image
        if self.channels == 3:
            return image.expand(3, -1, -1).contiguous()
        red, green, blue = image.int()  # the weights, in 1/65536, with which PIL turns RGB files into grey ones
        return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8)[None]


class FolderDataset:
    """Image files of any size below one folder."""

    def __init__(
        self, name: str, root: Path, files: Sequence[str], labels: Labels | None, class_names: Sequence[str], channels: int
    ) -> None:
        """files: paths relative to `root`."""
        self.name, self.root, self.labels, self.class_names = name, root, labels, tuple(class_names)
        # one array of bytes: a million Python strings would be copied into every worker process
        self.files = np.array([os.fsencode(file) for file in files])
        self.channels = channels
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Read image number `index`. Raises CorruptImage."""
        path = self.root / os.fsdecode(bytes(self.files[index]))
        try:
            return load_image(path, self.channels)
        except UNREADABLE as error:
            raise CorruptImage(str(path)) from error


class Subset:
    """Some images of another data set, in a given order."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int]) -> None:
        self.indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(self.indices) and not (0 <= self.indices.min() and self.indices.max() < len(dataset)):
            raise ValueError(f"indices must lie between 0 and {len(dataset) - 1}, the last image of {dataset.name}")
        self.dataset, self.class_names, self.skipped = dataset, dataset.class_names, dataset.skipped
        self.name = f"{dataset.name}-{_digest(self.indices.tobytes())}"
        self.labels = None if dataset.labels is None else dataset.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """The image at place `index` of the chosen ones. Raises CorruptImage."""
        return self.dataset.load(int(self.indices[index]))


def subset(dataset: ImageDataset, indices: Sequence[int]) -> ImageDataset:
    """The chosen images as a data set, in the order of `indices`; what is skipped is noted in both."""
    return Subset(dataset, indices)


def decode_to_memory(dataset: ImageDataset, limit_bytes: int = 1 << 30) -> ImageDataset:
    """Read all images now if they have one size and fit into `limit_bytes`; else the data set comes back unchanged.

    Unreadable files are left out, with their labels, and noted in `skipped`. Raises ValueError if no file is readable.
    """
    if isinstance(dataset, ArrayDataset):
        return dataset
    images, kept, skipped = np.empty(0, np.uint8), [], list(dataset.skipped)
    for index in range(len(dataset)):
        try:
            image = dataset.load(index).numpy()
        except CorruptImage as error:
            skipped += [error.path] if error.path not in skipped else []
            continue
        if not kept:
            if image.nbytes * len(dataset) > limit_bytes:
                return dataset
            images = np.empty((len(dataset), *image.shape), np.uint8)
        elif image.shape != images.shape[1:]:
            return dataset
        images[len(kept)] = image
        kept.append(index)
    if not kept:
        raise none_readable(dataset)
    labels = None if dataset.labels is None else dataset.labels[kept]
    memory = ArrayDataset(dataset.name, images[: len(kept)], labels, dataset.class_names)
    memory.skipped = skipped
    return memory


def none_readable(dataset: ImageDataset) -> ValueError:
    """The error to raise where a data set turned out to hold no readable image."""
    return ValueError(f"none of the {len(dataset)} images of {dataset.name} could be read; are the files complete?")


def load_dataset(
    name: str | Path, *, split: str = "train", data_root: str | Path | None = None, channels: int | None = None
) -> ImageDataset:
    """A data set by name (`mnist5k`, `digits`, `cifar10`, `cifar100`, `mnist`, `fashion-mnist`) or a folder of images.

    A folder may hold sub-folders, which are classes, or `train/` and `test/` (or `val/`, `valid/`); without these, one
    image in ten, chosen by its file name, is the test split. data_root: where a named set lies, or is downloaded to; by
    default $MAGE_DATA or ~/.cache/mage. channels: 1 for grey, 3 for RGB, None for the set's own (folders: RGB).
    Raises ValueError that says what was expected.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be train or test, not {split!r}")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB), not {channels}")
    key = name.lower().replace("_", "-") if isinstance(name, str) else None
    if key == "mnist5k" or key == "digits":
        return _embedded(key, split, channels)
    if key in _public:
        return _public_set(key, split, data_root, channels)
    folder = Path(name).expanduser()
    if not folder.exists() and data_root is not None:
        folder = Path(data_root).expanduser() / folder
    if folder.is_file():
        raise ValueError(f"{folder} is a file: give a folder of images (an archive has to be unpacked first)")
    if not folder.is_dir():
        known = ", ".join(["mnist5k", "digits", *_public])
        raise ValueError(f"there is no data set or folder {str(name)!r}: give {known} or a path to a folder of images")
    return _folder_set(folder, split, channels)
