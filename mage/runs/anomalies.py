"""Rank the images of a folder by how unlike a model's training images they are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import atomic, images
from mage.data.datasets import ImageDataset, Subset
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.anomaly import Maps, Normal, Scoring, maps_of, pooled, scaled, scores
from mage.pipeline import Mage
from mage.runs.table_files import csv_text

OnImages = Callable[[int], None]
"""Called with the number of images finished since the last call."""
COLUMNS = ("rank", "file", "score", "surprise_mean", "surprise_max", "surprise_top", "reconstruction_error")
MOST_NORMAL = 1000
"""Largest number of images by which what is normal is measured."""


@dataclass(frozen=True)
class Scored:
    """The numbers of one image."""

    index: int
    """Number of the image in its data set."""
    score: float
    mean: float
    """Mean surprise of its tokens, in nats."""
    max: float
    """Of the most surprising token."""
    top: float
    """Mean of the most surprising tenth."""
    error: float
    """Mean over its tokens of the tokenizer's error (`Maps.error`)."""


class Pictures(NamedTuple):
    """Images of the model's size, and what is drawn over them."""

    shown: list[Scored]
    """Whose images these are."""
    images: Float[Tensor, "n c H W"]
    heat: Float[Tensor, "n h w"]
    """Scaled surprise."""


class NumberedMaps(NamedTuple):
    """The maps of one batch."""

    numbers: Int[Tensor, " n"]
    """Of the images in their data set."""
    maps: Maps


def measure_normal(
    model: Mage, dataset: ImageDataset, scoring: Scoring, *, batch_size: int = 64, on_images: OnImages | None = None
) -> Normal:
    """What is normal, from the readable images of a data set. Raises ValueError for fewer than two."""
    parts = [part.maps for part in _maps(model, dataset, scoring, batch_size, on_images)]
    return Normal.of(Maps(*(torch.cat(maps) for maps in zip(*parts, strict=True))))


def rank_images(
    model: Mage,
    dataset: ImageDataset,
    scoring: Scoring,
    normal: Normal | None = None,
    *,
    batch_size: int = 64,
    on_images: OnImages | None = None,
) -> list[Scored]:
    """Every readable image with its numbers, the highest score first; the others are in the set's `skipped`.

    normal: for scorings with a scale. Raises ValueError if no image can be read, or the model cannot score.
    """
    scored: list[Scored] = []
    for part in _maps(model, dataset, scoring, batch_size, on_images):
        surprise = part.maps.surprise
        columns = torch.stack(
            [
                scores(part.maps, scoring, normal),
                *(pooled(surprise, pool) for pool in ("mean", "max", "top")),
                pooled(part.maps.error, "mean"),
            ],
            dim=1,
        )
        scored += [Scored(index, *row) for index, row in zip(part.numbers.tolist(), columns.tolist(), strict=True)]
    return sorted(scored, key=lambda image: (-image.score, image.index))


def pictures(
    model: Mage, dataset: ImageDataset, chosen: Sequence[Scored], scoring: Scoring, normal: Normal | None = None
) -> Pictures:
    """The chosen images and their heat; maps are computed again, because few are shown of many.

    Images that cannot be read any more are left out, and noted in `skipped`. Raises NoneReadable if that is all.
    """
    cut = build_transform(TransformConfig(size=model.image_size))
    subset = Subset(dataset, [image.index for image in chosen])
    batches = list(evaluation_batches(subset, cut))
    shown = images.to_float(torch.cat([batch["images"] for batch in batches]))
    kept = [chosen[place] for batch in batches for place in batch["index"].tolist()]
    return Pictures(kept, shown, scaled(maps_of(model, shown, scoring), scoring.scale, normal))


def write_scores(path: Path, ranked: Sequence[Scored], names: Sequence[str]) -> None:
    """Write COLUMNS as CSV, the highest score first, atomically. names: files of the data set."""
    lines = [",".join(COLUMNS)]
    for rank, image in enumerate(ranked, 1):
        numbers = (image.score, image.mean, image.max, image.top, image.error)
        lines.append(",".join([str(rank), csv_text(names[image.index]), *(f"{number:.6g}" for number in numbers)]))
    atomic.write_text(path, "\n".join(lines) + "\n")


def _maps(
    model: Mage, dataset: ImageDataset, scoring: Scoring, batch_size: int, on_images: OnImages | None
) -> Iterator[NumberedMaps]:
    cut = build_transform(TransformConfig(size=model.image_size))
    for batch in evaluation_batches(dataset, cut, batch_size=batch_size):
        shown = images.to_float(batch["images"])
        yield NumberedMaps(batch["index"], maps_of(model, shown, scoring, batch_size=batch_size))
        if on_images is not None:
            on_images(len(shown))
