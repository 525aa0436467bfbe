"""The class of every image of a folder, written into a table in pieces (`mage predict`)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mage.data.named_images import named_images
from mage.data.tar_images import ShardConfig
from mage.data.transforms import describe
from mage.evaluation.confusion import Confusion
from mage.evaluation.image_classifier import ImageClassifier
from mage.runs.rows import RowWork, Table, check_table, write_rows
from mage.runs.table_files import Column, read_table

COLUMNS = (
    Column("class", "text"),
    Column("score", "number"),
    Column("second", "text"),
    Column("second_score", "number"),
)
"""The most probable class and the next one, each with its share of the softmax of all class scores."""


def predict(
    classifier: ImageClassifier,
    data: str | Path,
    out: str | Path,
    *,
    split: str = "all",
    data_root: str | None = None,
    shards: ShardConfig | None = None,
    batch_size: int = 256,
    workers: int = 0,
    on_start: Callable[[int], None] | None = None,
    on_images: Callable[[int], None] | None = None,
) -> Table:
    """Write the class of each image, its score, and the next class, into a .csv, .parquet or .npz.

    Stopped and repeated calls go on as those of `embed`. Raises ValueError for a table of another classifier.
    """
    out, model = Path(out), classifier.model
    key = {
        "content": "predictions",
        "classifier": classifier.fingerprint,
        "precision": model.precision,
        "transform": describe(classifier.transform),
    }
    check_table(out, key)
    source = named_images(data, split=split, data_root=data_root, channels=model.channels, shards=shards)
    if on_start is not None:
        on_start(len(source))

    def compute(pixels: Tensor) -> dict[str, np.ndarray]:
        best = classifier.scores(pixels).topk(2, dim=1)
        names = np.array(classifier.class_names)[best.indices.numpy()]
        scores = best.values.numpy()
        return {"class": names[:, 0], "score": scores[:, 0], "second": names[:, 1], "second_score": scores[:, 1]}

    work = RowWork(COLUMNS, key, classifier.transform, compute)
    return write_rows(source, out, work, batch_size=batch_size, workers=workers, on_images=on_images)


def agreement(table: Table, class_names: tuple[str, ...]) -> Confusion | None:
    """Answers compared with the sub-folders of a table of predictions; None unless these are all names of classes."""
    number = {name: index for index, name in enumerate(class_names)}
    labels: list[int] = []
    answers: list[int] = []
    for piece in read_table(table.out, (Column("label", "text"), COLUMNS[0])):
        if not number.keys() >= set(piece["label"].tolist()):
            return None
        labels += [number[label] for label in piece["label"].tolist()]
        answers += [number[answer] for answer in piece["class"].tolist()]
    return Confusion.of(torch.tensor(answers), torch.tensor(labels), class_names) if labels else None
