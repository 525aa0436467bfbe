"""Write a data set as tar shards, each split into a folder of its own if the data has splits (`mage shards`)."""

import logging
from collections.abc import Callable
from pathlib import Path

from mage.data.datasets import DATASETS, load_dataset
from mage.data.image_sets import FolderDataset, ImageDataset
from mage.data.names import registered
from mage.data.shard_writer import WrittenShards, write_shards
from mage.data.tar_images import TarDataset

logger = logging.getLogger(__name__)


def shards(
    data: str | Path,
    out: str | Path,
    *,
    most_bytes: int = 500_000_000,
    seed: int = 0,
    data_root: str | None = None,
    on_start: Callable[[int], None] | None = None,
    on_images: Callable[[int], None] | None = None,
) -> dict[str, WrittenShards]:
    """Write shards of at most `most_bytes` into OUT, or into OUT/train and OUT/test; by split, "" without splits.

    A stopped call goes on where it was when it is repeated. on_start: called with the number of images.
    Raises ValueError for missing data, and for a folder that holds something else.
    """
    out = Path(out)
    parts = _parts(data, data_root)
    if on_start is not None:
        on_start(sum(len(dataset) for dataset in parts.values()))
    stem = out.resolve().name
    return {
        split: write_shards(
            dataset,
            out / split,
            prefix=f"{stem}-{split}" if split else stem,
            most_bytes=most_bytes,
            seed=seed,
            on_images=on_images,
        )
        for split, dataset in parts.items()
    }


def _parts(data: str | Path, data_root: str | None) -> dict[str, ImageDataset]:
    """The images of each split; all under "" if the folder has none, because readers then hold out a tenth."""

    def split(name: str) -> ImageDataset:
        return load_dataset(data, split=name, data_root=data_root)

    if registered(data, DATASETS.names()):
        return {"train": split("train"), "test": split("test")}
    whole, train = split("all"), split("train")
    if isinstance(whole, FolderDataset) and isinstance(train, FolderDataset) and whole.root == train.root:
        return {"": whole}
    if isinstance(whole, TarDataset) and isinstance(train, TarDataset) and len(whole.shards) == len(train.shards):
        return {"": whole}
    test = split("test")
    if left := len(whole) - len(train) - len(test):
        logger.warning("%d images of %s are in neither of its two splits and are not written", left, data)
    return {"train": train, "test": test}
