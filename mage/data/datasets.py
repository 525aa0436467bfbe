"""Data sets by name or from a folder of images.

A data set loads uint8 images one at a time and never hides a bad file: `load` raises CorruptImage, and readers leave
the file out and add it to `skipped`.

Letters: n images, c channels, h height, w width.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mage import images, rng
from mage.data.embedded import embedded_arrays
from mage.data.idx import read_idx
from mage.data.image_folders import classes_of, hold_out, image_files, labelled_first
from mage.data.names import DATASETS as DATASETS
from mage.data.names import DatasetLoader, check_folder, registered
from mage.images import SUFFIXES

Labels = Int64[np.ndarray, " n"]
TEST_FOLDERS = ("test", "val", "valid", "validation")
EMBEDDED = ("mnist5k", "digits")
DOWNLOADED = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
DIGITS = tuple("0123456789")


class CorruptImage(ValueError):
    """The file `path` cannot be read as an image."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"cannot read {self.path} as an image"


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


def content_of(dataset: ImageDataset) -> str:
    """A short string that identifies a data set's content, wherever it is stored: the key of caches and runs."""
    return str(getattr(dataset, "content", dataset.name))


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
        return _digest(self.files.tobytes())

    def __len__(self) -> int:
        return len(self.files)

    def names(self) -> list[str]:
        """Names of all files, relative to `root`."""
        return [os.fsdecode(bytes(file)) for file in self.files]

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Image `index`. Raises CorruptImage."""
        path = self.root / os.fsdecode(bytes(self.files[index]))
        try:
            return images.load_image(path, self.channels)
        except ValueError:
            raise CorruptImage(str(path)) from None


class Subset:
    """Chosen images of another data set, in a given order; `skipped` is shared by both."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int]) -> None:
        self.indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(self.indices) and not 0 <= self.indices.min() <= self.indices.max() < len(dataset):
            low, high = int(self.indices.min()), int(self.indices.max())
            raise ValueError(f"{dataset.name} has images 0 to {len(dataset) - 1}; the subset has {low} to {high}")
        self.dataset, self.class_names, self.skipped = dataset, dataset.class_names, dataset.skipped
        chosen = _digest(self.indices.tobytes())
        self.name, self.content = f"{dataset.name}-{chosen}", f"{content_of(dataset)}-{chosen}"
        self.labels = None if dataset.labels is None else dataset.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Image `index` of the subset. Raises CorruptImage."""
        return self.dataset.load(int(self.indices[index]))


def load_dataset(
    name: str | Path, *, split: str = "train", data_root: str | Path | None = None, channels: int | None = None
) -> ImageDataset:
    """A data set by name (of DATASETS), or a folder of images.

    A folder may hold class folders, and `train/` and `test/` (or `val/`, `valid/`) above them; without any of these,
    a tenth of the files, chosen by name, is the test split. The split `all` takes a folder as it is.
    data_root: folder of a named data set, or for its download; by default $MAGE_DATA or ~/.cache/mage.
    channels: 1 for grey, 3 for RGB, other numbers for folders of .npy and TIFF; None: the data set's (folders: 3).
    Raises ValueError if there is no such data set, folder or split.
    """
    if channels is not None and channels < 1:
        raise ValueError(f"channels must be 1 (grey), 3 (RGB) or the number of bands, not {channels}")
    key = registered(name, DATASETS.names())
    named = key != ""
    if split not in ("train", "test") and (split != "all" or named):
        raise ValueError(f"split must be train or test (or all, of a folder), not {split!r}")
    if key in (*EMBEDDED, *DOWNLOADED) and channels not in (None, 1, 3):
        raise ValueError(f"{key} can be read with 1 (grey) or 3 (RGB) channels, not {channels}")
    if named:
        dataset = DATASETS.get(key)(split, data_root, channels)
        if not isinstance(dataset, ImageDataset):
            raise ValueError(
                f"the loader of the data set {key!r} gave a {type(dataset).__name__}; it must give an ImageDataset: "
                "name, class_names, labels, skipped, len() and load(index), such as ArrayDataset"
            )
        return dataset
    return _folder(check_folder(name, DATASETS.names()), split, channels or 3)


def subset(dataset: ImageDataset, indices: Sequence[int]) -> ImageDataset:
    """The images `indices` of a data set, in this order."""
    return Subset(dataset, indices)


def _folder(folder: Path, split: str, channels: int, name: str | None = None) -> FolderDataset:
    inside = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    tests = [test for test in TEST_FOLDERS if test in inside]
    root, other = folder, folder
    if (
        split != "all" and "train" in inside and (tests or len(inside) == 1)
    ):  # a lone `train` among other folders is a class: railways
        if split == "test" and not tests:
            raise ValueError(f"{folder} has train/ but no test/: add it, or give {folder}/train to hold out a tenth")
        train, test = folder / "train", folder / (labelled_first(folder, tests) if tests else "train")
        root, other = (train, test) if split == "train" else (test, train)
    files = image_files(root)
    if not files:
        raise ValueError(f"{root} holds no images: expected {', '.join(SUFFIXES)} in it or in a folder per class")
    # classes of both splits, so that a class has one number even if a split lacks another class
    classes = tuple(sorted(classes_of(files) | (classes_of(image_files(other)) if other != root else set())))
    labelled = bool(classes_of(files))
    if root == folder:
        files = hold_out(files, split)
    number = {label: index for index, label in enumerate(classes)}
    encoded = np.array([os.fsencode(file) for file in files])
    return FolderDataset(
        name or f"{folder.resolve().name}-{_digest(encoded.tobytes())}",
        root,
        encoded,
        np.array([number[file.split("/")[0]] for file in files], dtype=np.int64) if labelled else None,
        classes if labelled else (),
        channels,
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _embedded(name: str, split: str, channels: int | None) -> ArrayDataset:
    """mnist5k: 400 + 100 images per class; digits: 1,500 + 297. Both splits are shuffled."""
    array, labels = embedded_arrays(name)
    order = torch.randperm(len(array), generator=rng.generator(0, "split")).numpy()
    test = order[1500:]
    if name == "mnist5k":
        test = np.concatenate([order[labels[order] == digit][:100] for digit in range(10)])
    chosen = test if split == "test" else np.setdiff1d(order, test)
    # after both ways of splitting, the classes are sorted or unevenly spread along the split
    chosen = chosen[torch.randperm(len(chosen), generator=rng.generator(0, "split", split)).numpy()]
    return ArrayDataset(name, array[chosen], labels[chosen].astype(np.int64), DIGITS, channels)


def default_root() -> Path:
    """The folder of named data sets, and of what is kept from one run for the next: MAGE_DATA, else ~/.cache/mage."""
    return Path(os.environ.get("MAGE_DATA") or "~/.cache/mage").expanduser()


def _downloaded(name: str, split: str, data_root: str | Path | None, channels: int | None) -> ImageDataset:
    from torchvision import datasets

    kind: Any = getattr(datasets, DOWNLOADED[name])
    root = default_root() if data_root is None else Path(data_root).expanduser()
    if data_root is not None and not root.is_dir():
        raise ValueError(f"there is no folder {root} to look for {name} in; create it, or leave data_root out")
    raw = name.endswith("mnist")
    expected = "train-images-idx3-ubyte.gz and its three companions" if raw else f"{kind.base_folder}/"
    if (root / "train").is_dir() and (root / "test").is_dir():
        dataset = _folder(root, split, channels or (1 if raw else 3), name)
        if len(dataset.class_names) != (count := 100 if name == "cifar100" else 10):
            raise ValueError(f"{root} holds {len(dataset.class_names)} class folders, but {name} has {count} classes")
        return dataset
    for folder in (root, root / DOWNLOADED[name] / "raw") if raw else ():
        if any(folder.glob("*-images-idx3-ubyte*")):
            return _idx_files(name, folder, split, kind.classes, channels)
    try:
        data = kind(str(root), train=split == "train", download=True)  # does nothing if the files are there
    except Exception as error:  # for every failure the advice is the same
        raise ValueError(
            f"{name} is not in {root} and could not be downloaded ({type(error).__name__}): "
            f"put {expected} there, or images as train/CLASS/*.jpg and test/CLASS/*.jpg"
        ) from None
    if raw:
        return _idx_files(name, root / DOWNLOADED[name] / "raw", split, kind.classes, channels)
    array = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return ArrayDataset(name, array, np.asarray(data.targets, np.int64), tuple(data.classes), channels)


def _idx_files(name: str, folder: Path, split: str, classes: Sequence[str], channels: int | None) -> ArrayDataset:
    which = "train" if split == "train" else "t10k"
    pixels = torch.from_numpy(read_idx(folder / f"{which}-images-idx3-ubyte", 3))[:, None]
    labels = read_idx(folder / f"{which}-labels-idx1-ubyte", 1).astype(np.int64)
    return ArrayDataset(name, pixels, labels, DIGITS if name == "mnist" else tuple(classes), channels)


def _embedded_loader(name: str) -> DatasetLoader:
    return lambda split, data_root, channels: _embedded(name, split, channels)


def _downloaded_loader(name: str) -> DatasetLoader:
    return lambda split, data_root, channels: _downloaded(name, split, data_root, channels)


for _name in EMBEDDED:
    DATASETS.add(_name, _embedded_loader(_name))
for _name in DOWNLOADED:
    DATASETS.add(_name, _downloaded_loader(_name))
