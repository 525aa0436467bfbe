"""The images of a folder or data set with the names, labels and versions that a table of results lists them by.

Letters: n images, c channels, h height, w width.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from mage.data.datasets import DATASETS, load_dataset
from mage.data.image_folders import split_folders
from mage.data.image_sets import (
    ArrayDataset,
    CorruptImage,
    FolderDataset,
    ImageDataset,
    Labels,
    content_of,
    digest,
    load_reduced,
)
from mage.data.names import registered
from mage.data.rows import RowDataset
from mage.data.tar_images import ShardConfig, TarDataset


class Version(NamedTuple):
    """Size and time of a file: if both are unchanged, so are its contents."""

    size: int
    """Bytes; 0 for images that are no files."""
    modified: int
    """Nanoseconds since 1970; of images that are no files, a number that changes with what they show."""


MISSING = Version(-1, 0)
"""Version of a file that is no longer there."""


class NamedImages:
    """A data set whose images have names; unreadable ones are noted in `skipped`.

    Names are relative to the folder, with forward slashes; labels are names of sub-folders, "" without one. Bytes of
    file names that are not UTF-8 are written as backslash escapes.
    """

    labels: Labels | None = None
    class_names: tuple[str, ...] = ()

    def __init__(self, name: str, parts: Sequence[tuple[str, ImageDataset]]) -> None:
        """parts: data sets, each with what precedes the names of its images."""
        self.name, self.skipped = name, [path for _, dataset in parts for path in dataset.skipped]
        self._parts, self._starts = list(parts), np.cumsum([0, *(len(dataset) for _, dataset in parts)])
        tops = {self._file(dataset, index).split("/")[0] for _, dataset in parts for index in range(len(dataset))}
        train, tests = split_folders(tops)
        self._split_folders = bool(train and tests) and tops <= {train, *tests}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def parts(self) -> list[ImageDataset]:
        """The data sets that the images come from."""
        return [dataset for _, dataset in self._parts]

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Image `index`. Raises CorruptImage."""
        return self.load_reduced(index, 0)

    def load_reduced(self, index: int, at_least: int) -> UInt8[Tensor, "c h w"]:
        """The same; a large JPEG file is read smaller."""
        (_, dataset), place = self._place(index)
        return load_reduced(dataset, place, at_least)

    def file(self, index: int) -> str:
        """Name of image `index`."""
        (prefix, dataset), place = self._place(index)
        return prefix + self._file(dataset, place)

    def label(self, index: int) -> str:
        """Name of the class of image `index`: of the first sub-folder below train/ and test/, if there are those."""
        (_, dataset), place = self._place(index)
        if not isinstance(dataset, FolderDataset):
            return dataset.class_names[int(dataset.labels[place])] if dataset.labels is not None else ""
        folders = self._file(dataset, place).split("/")[:-1]
        folders = folders[1:] if self._split_folders else folders
        return folders[0] if folders else ""

    def version(self, index: int) -> Version:
        """Size and time of the file of image `index`."""
        (_, dataset), place = self._place(index)
        if isinstance(dataset, TarDataset):
            return Version(*dataset.version(place))
        if isinstance(dataset, ArrayDataset):
            return Version(0, int(digest(dataset.array[place].numpy().tobytes()), 16))
        if isinstance(dataset, RowDataset) and not dataset.marked:
            try:
                return Version(0, int(digest(dataset.load(place).numpy().tobytes()), 16))
            except CorruptImage:
                return MISSING
        if not isinstance(dataset, FolderDataset):
            return Version(0, int(digest(content_of(dataset).encode()), 16))
        try:
            status = os.stat(dataset.root / os.fsdecode(bytes(dataset.files[place])))
        except OSError:
            return MISSING
        return Version(status.st_size, status.st_mtime_ns)

    def _place(self, index: int) -> tuple[tuple[str, ImageDataset], int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part], index - int(self._starts[part])

    @staticmethod
    def _file(dataset: ImageDataset, place: int) -> str:
        return dataset.file_name(place) if isinstance(dataset, FolderDataset | TarDataset) else f"{place:07d}"


def named_images(
    data: str | Path,
    *,
    split: str = "all",
    data_root: str | Path | None = None,
    channels: int | None = None,
    shards: ShardConfig | None = None,
) -> NamedImages:
    """The images of a folder, of shards, or of a data set by name: all, or those of the split "train" or "test".

    Raises ValueError as `load_dataset`.
    """
    if split not in ("all", "train", "test"):
        raise ValueError(f"split must be all, train or test, not {split!r}")

    def part(name: str) -> ImageDataset:
        return load_dataset(data, split=name, data_root=data_root, channels=channels, shards=shards)

    if registered(data, DATASETS.names()):
        splits = ("train", "test") if split == "all" else (split,)
        return NamedImages(str(data), [(f"{name}/", part(name)) for name in splits])
    dataset, folder = part(split), Path(data).expanduser()
    below = dataset.root.relative_to(folder).as_posix() if isinstance(dataset, FolderDataset) else "."
    return NamedImages(dataset.name, [("" if below == "." else f"{below}/", dataset)])
