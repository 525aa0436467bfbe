"""Any data set with a length and an index, such as PyTorch's or Hugging Face's, as a data set of this library.

A row is a mapping with names of columns, `{"image": ..., "label": 3}`, or a sequence, `(image, 3)`, whose columns are
numbered. Images are PIL images, tensors, arrays or paths.

Letters: c channels, h height, w width.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from mage import images
from mage.data.datasets import DATASETS
from mage.data.image_sets import CorruptImage, ImageDataset, Labels
from mage.inputs import as_images

logger = logging.getLogger(__name__)
Column = str | int


class RowDataset:
    """Images and labels of another data set's rows, read on access."""

    def __init__(
        self,
        rows: Any,
        *,
        name: str,
        image: Column = 0,
        label: Column | None = None,
        class_names: Sequence[str] = (),
        channels: int = 3,
    ) -> None:
        """rows: has len() and an index. name: of these images, for messages; others must have another name.

        image, label: columns, by name or number; label None: without labels. class_names: default: those that Hugging
        Face's features or torchvision's `classes` tell, else the numbers. channels: 1 for grey, 3 for RGB.
        Raises ValueError for a stream, a column that is not there, and labels that are no numbers of classes.
        """
        if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__"):
            raise ValueError(f"rows must have a length and an index, such as rows[0]; {type(rows).__name__} has not")
        if not len(rows):
            raise ValueError(f"{name} holds no rows")
        self.rows, self.image, self.channels, self.name = rows, image, channels, name
        self.skipped = list[str]()
        # Hugging Face's hash of the data and of everything that was done with them
        self.content = getattr(rows, "_fingerprint", None) or name
        self.marked = self.content != name
        """Whether the content changes with any image."""
        _cell(rows[0], image)
        self.labels: Labels | None = None if label is None else _labels(rows, label)
        self.class_names: tuple[str, ...] = ()
        if self.labels is not None:
            least, most = int(self.labels.min()), int(self.labels.max())
            self.class_names = tuple(class_names) or _class_names(rows, label) or tuple(map(str, range(most + 1)))
            if not 0 <= least <= most < len(self.class_names):
                raise ValueError(
                    f"labels of {name} run from {least} to {most}, but {len(self.class_names)} classes have names"
                )

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Image `index`. Raises CorruptImage."""
        try:
            cell = _cell(self.rows[int(index)], self.image)
            if isinstance(cell, dict):  # Hugging Face's images before they are decoded
                if cell.get("bytes") is not None:
                    return images.from_bytes(cell["bytes"], self.channels)
                cell = cell.get("path") or cell
            batch = as_images(cell, size=None, channels=self.channels, resize=False)
        except Exception as error:  # rows decode images themselves, and Pillow raises SyntaxError for a broken PNG
            raise CorruptImage(f"row {index} of {self.name} ({error})") from None
        return images.to_uint8(batch.pixels[0])


def register_rows(name: str, train: Any, test: Any = None, **columns: Any) -> None:
    """Make rows a data set that recipes, `mage.load_dataset` and the functions of `mage.runs` find by name.

    train, test: rows of the two splits. columns: image, label, class_names of `RowDataset`. Raises ValueError if the
    name is taken.
    """
    splits = {"train": train, "test": test}

    def load(split: str, data_root: str | Path | None, channels: int | None) -> ImageDataset:
        if splits[split] is None:
            raise ValueError(f"{name} was registered without test rows: give test=")
        return RowDataset(splits[split], name=f"{name}-{split}", channels=channels or 3, **columns)

    DATASETS.add(name, load)


def _cell(row: Any, column: Column) -> Any:
    try:
        return row[column]
    except (KeyError, IndexError, TypeError):
        there = ", ".join(map(repr, row)) if isinstance(row, dict) else f"numbers below {len(row)}"
        raise ValueError(f"rows have no column {column!r}; there are {there}") from None


def _labels(rows: Any, column: Column) -> Labels:
    """All labels, without decoding images where the data set has them apart."""
    if isinstance(column, str) and column in getattr(rows, "column_names", ()):
        values = rows[column][:]  # Hugging Face's
    elif isinstance(column, int) and hasattr(rows, "targets") and not _changes_targets(rows):
        values = rows.targets  # torchvision's
    else:
        logger.info("reading the labels of %s rows once", f"{len(rows):,}")
        values = [_cell(rows[index], column) for index in range(len(rows))]
    labels = np.asarray(values)
    if labels.dtype.kind not in "iu" or labels.shape != (len(rows),):
        raise ValueError(f"column {column!r} must hold one whole number per row, not {labels.dtype} {labels.shape}")
    return labels.astype(np.int64)


def _changes_targets(rows: Any) -> bool:
    """Whether rows of torchvision have other labels than their attribute `targets` says."""
    both = getattr(rows, "transforms", None)
    return any(getattr(which, "target_transform", None) is not None for which in (rows, both)) or not (
        both is None or hasattr(both, "target_transform")  # a transform of image and label together
    )


def _class_names(rows: Any, column: Column | None) -> tuple[str, ...]:
    features = getattr(rows, "features", None)
    if isinstance(features, dict) and hasattr(features.get(column), "names"):
        return tuple(features[column].names)
    return tuple(getattr(rows, "classes", ()))
