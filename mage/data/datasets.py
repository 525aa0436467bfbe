"""Data sets by name, from a folder of images, or from tar shards, on disk or in an object store."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mage import locks, rng
from mage.data.embedded import embedded_arrays
from mage.data.idx import read_idx
from mage.data.image_folders import classes_of, hold_out, image_files, labelled_first, split_folders, tell_outside
from mage.data.image_sets import ArrayDataset as ArrayDataset
from mage.data.image_sets import CorruptImage as CorruptImage
from mage.data.image_sets import FolderDataset as FolderDataset
from mage.data.image_sets import ImageDataset as ImageDataset
from mage.data.image_sets import Labels as Labels
from mage.data.image_sets import Subset as Subset
from mage.data.image_sets import content_of as content_of
from mage.data.image_sets import digest, readable_name
from mage.data.image_sets import evenly as evenly
from mage.data.image_sets import spread as spread
from mage.data.names import DATASETS as DATASETS
from mage.data.names import check_folder, registered
from mage.data.shard_names import are_shards
from mage.data.storage import default_root as default_root
from mage.data.tar_images import ShardConfig, open_shards
from mage.pil_modes import SUFFIXES

EMBEDDED = ("mnist5k", "digits")
DOWNLOADED = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
DIGITS = tuple("0123456789")


def load_dataset(
    name: str | Path,
    *,
    split: str = "train",
    data_root: str | Path | None = None,
    channels: int | None = None,
    shards: ShardConfig | None = None,
) -> ImageDataset:
    """A data set by name (of DATASETS), a folder of images, or tar shards such as s3://bucket/x-{0000..0099}.tar.

    A folder may hold class folders, and `train/` and `test/` (or `val/`, `valid/`) above them; without any of these,
    a tenth of the files, chosen by name, is the test split. The split `all` takes a folder as it is.
    data_root: folder of a named data set, or for its download; by default $MAGE_DATA or ~/.cache/mage.
    channels: 1 for grey, 3 for RGB, other numbers for folders of .npy and TIFF; None: the data set's (folders: 3).
    shards: how tar shards are read.
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
    folder = Path(name).expanduser()
    if are_shards(name) and not (folder.is_dir() and image_files(folder)):
        return open_shards(name, split=split, channels=channels or 3, config=shards)
    return _folder(check_folder(name, DATASETS.names()), split, channels or 3)


def train_and_test(
    name: str | Path, *, data_root: str | Path | None = None, channels: int | None = None
) -> tuple[ImageDataset, ImageDataset]:
    """Both splits of a data set, opened by `load_dataset`."""
    train, test = (
        load_dataset(name, split=split, data_root=data_root, channels=channels) for split in ("train", "test")
    )
    return train, test


def _folder(folder: Path, split: str, channels: int, name: str | None = None) -> FolderDataset:
    inside = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    inside.discard("__MACOSX")  # of macOS, beside what a zip holds
    training, tests = split_folders(inside)
    root, other = folder, folder
    if (
        split != "all" and training and (tests or len(inside) == 1)
    ):  # a lone `train` among other folders is a class: railways
        if split == "test" and not tests:
            raise ValueError(
                f"{folder} has {training}/ but no test/: add it, or give {folder}/{training} to hold out a tenth"
            )
        train, test = folder / training, folder / (labelled_first(folder, tests) if tests else training)
        root, other = (train, test) if split == "train" else (test, train)
    files = image_files(root)
    if not files:
        raise ValueError(f"{root} holds no images: expected {', '.join(SUFFIXES)} in it or in a folder per class")
    # classes of both splits, so that a class has one number even if a split lacks another class
    folders = classes_of(files) | (classes_of(image_files(other)) if other != root else set())
    classes = tuple(sorted(set(map(readable_name, folders))))
    labelled = bool(classes_of(files))
    if not labelled:
        tell_outside(str(root), files)
    if root == folder:
        files = hold_out(files, split)
    number = {label: index for index, label in enumerate(classes)}
    encoded = np.array([os.fsencode(file) for file in files])
    return FolderDataset(
        name or f"{folder.resolve().name}-{digest(encoded.tobytes())}",
        root,
        encoded,
        np.array([number[readable_name(file.split("/")[0])] for file in files], dtype=np.int64) if labelled else None,
        classes if labelled else (),
        channels,
    )


def _embedded(name: str, split: str, _: str | Path | None, channels: int | None) -> ArrayDataset:
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


def _once_downloaded(open_set: Callable[[bool], Any], root: Path, name: str) -> Any:
    """A data set of torchvision, which one of several processes downloads if it is not there.

    open_set: opens it, and downloads it before if it is told to.
    """
    try:
        return open_set(False)
    except RuntimeError:  # not found
        with locks.turns(root / f".{name}.lock"):
            return open_set(True)  # nothing is downloaded twice


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
        data = _once_downloaded(lambda download: kind(str(root), train=split == "train", download=download), root, name)
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


for _name in EMBEDDED:
    DATASETS.add(_name, partial(_embedded, _name))
for _name in DOWNLOADED:
    DATASETS.add(_name, partial(_downloaded, _name))
