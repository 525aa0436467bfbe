"""Features of every image of a folder, written into a table in pieces (`mage embed`)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mage.data.named_images import named_images
from mage.data.tar_images import ShardConfig
from mage.data.transforms import TransformConfig, describe
from mage.evaluation.image_classifier import model_fingerprint
from mage.models.pooling import Pool
from mage.pipeline import Mage
from mage.runs.rows import RowWork, Table, check_table, write_rows
from mage.runs.table_files import Column


def embed(
    model: Mage,
    data: str | Path,
    out: str | Path,
    *,
    split: str = "all",
    pool: Pool = "mean",
    data_root: str | None = None,
    shards: ShardConfig | None = None,
    batch_size: int = 256,
    workers: int = 0,
    on_start: Callable[[int], None] | None = None,
    on_images: Callable[[int], None] | None = None,
) -> Table:
    """Write the features of a folder's images, or of a data set's, into a .csv, .parquet or .npz.

    Columns: file, label (sub-folder), size and modified (of the file), features. A stopped call goes on where it was,
    and a repeated one computes the images that are new or changed. shards: how tar shards are read.
    on_start: called with the number of images.
    Raises ValueError for a model without features, and for a table of another model, pool or precision.
    """
    out, transform = Path(out), TransformConfig(size=model.image_size)
    key = {
        "content": "features",
        "model": model_fingerprint(model),
        "pool": pool,
        "precision": model.precision,
        "transform": describe(transform),
    }
    check_table(out, key)
    source = named_images(data, split=split, data_root=data_root, channels=model.channels, shards=shards)
    if on_start is not None:
        on_start(len(source))

    def compute(pixels: Tensor) -> dict[str, np.ndarray]:
        return {"features": model.features(pixels, pool, batch_size=batch_size).float().cpu().numpy()}

    width = compute(torch.zeros(1, model.channels, *model.image_size))["features"].shape[1]
    work = RowWork((Column("features", "vector", width),), key, transform, compute)
    return write_rows(source, out, work, batch_size=batch_size, workers=workers, on_images=on_images)
