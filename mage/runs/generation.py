"""Features of generated and real images for the metrics: from a folder, tar shards, a model, or stored features.

They are compared by `evaluation.generation`. Every metric is also computed for real images, because a Frechet distance
is never 0 for a finite number of images.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mage import images, rng
from mage.data.datasets import CorruptImage, ImageDataset, Subset, load_dataset
from mage.data.loaders import evaluation_batches
from mage.data.tar_images import open_shards
from mage.evaluation.extractors import Extractor, Seen
from mage.evaluation.generation import compare
from mage.evaluation.metric import Measured
from mage.evaluation.seen import Reference, SeenImages, look_at
from mage.pipeline import Mage
from mage.runs.production import Production, rounding_in
from mage.runs.sinks import feature_files, read_features
from mage.store.folder import find_folder

logger = logging.getLogger(__name__)
OnImages = Callable[[int], None]
Interpolation = Literal["bicubic", "bilinear"]


def look_at_model(
    model: Mage,
    production: Production,
    extractor: Extractor,
    *,
    rounding: images.Rounding = "nearest",
    on_images: OnImages | None = None,
) -> SeenImages:
    """Features of images that a model generates, without files; rounding: conversion of the images to 8 bits."""

    def batches() -> Iterator[Tensor]:
        for first in range(0, production.num, production.batch_size):
            numbers = range(first, min(first + production.batch_size, production.num))
            yield images.to_uint8(production.make(model, numbers), rounding)

    seen = look_at(batches(), extractor, production.num, on_images=on_images)
    seen.rounding = rounding
    return seen


def look_at_dataset(
    dataset: ImageDataset,
    extractor: Extractor,
    *,
    size: tuple[int, int],
    interpolation: Interpolation = "bicubic",
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    on_images: OnImages | None = None,
) -> SeenImages:
    """Features of a data set's images, scaled and cropped to `size`; those that cannot be read are left out and logged.

    Raises ValueError if none can be read.
    """

    def cut(image: Tensor, _: torch.Generator) -> Tensor:
        return images.fit(image, size, interpolation)

    def batches(part: ImageDataset) -> Iterator[Tensor]:
        count = 0
        for batch in evaluation_batches(part, cut, batch_size=batch_size):
            count += len(batch["index"])
            if int(batch["index"][-1]) >= count:
                raise _Unreadable  # at once: a pass may take an hour
            yield batch["images"].to(device)
        if count < len(part):
            raise _Unreadable

    try:
        return look_at(batches(dataset), extractor, len(dataset), on_images=on_images)
    except _Unreadable:
        part = _readable(dataset)
        return look_at(batches(part), extractor, len(part), on_images=on_images)


class _Unreadable(Exception):
    """Some images of a data set cannot be read; their number decides which features are kept, so all begins anew."""


def _readable(dataset: ImageDataset) -> Subset:
    """The images that can be read; the others are logged."""
    chosen, problems = list[int](), list[str]()
    for index in range(len(dataset)):
        try:
            dataset.load(index)
        except CorruptImage as error:
            problems.append(str(error))
        else:
            chosen.append(index)
    shown = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
    logger.warning("%s: %d unreadable images are left out: %s", dataset.name, len(problems), shown)
    return Subset(dataset, chosen)


def look_at_features(folder: Path, extractor: Extractor, num: int | None = None) -> SeenImages:
    """Features written by `mage generate --to features`; num: use the first images only.

    Raises ValueError for another extractor's features or a gap.
    """
    files = feature_files(folder)
    total = sum(len(seen.features) for seen in read_features(files, extractor.fingerprint))  # one file at a time
    total = total if num is None else min(num, total)
    images_seen, left = SeenImages(extractor.fingerprint, total), total
    images_seen.rounding = rounding_in(folder)
    for seen in read_features(files, extractor.fingerprint):
        if left <= 0:
            break
        images_seen.update(Seen(seen.features[:left], None if seen.logits is None else seen.logits[:left]))
        left -= len(seen.features)
    return images_seen


@dataclass(frozen=True)
class Samples:
    """Source of generated images: one of the three."""

    images: ImageDataset | None = None
    model: Path | None = None
    features: Path | None = None


def open_samples(path: Path) -> Samples:
    """The samples at a path: a model or run, images, tar shards, or features. Raises ValueError for anything else."""
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}: give a folder of images, of tar shards, or a model")
    if feature_files(path):
        return Samples(features=path)
    if any(path.glob("*.tar")):
        return Samples(images=open_shards(path))
    try:
        find_folder(path)
    except ValueError:
        return Samples(images=_without_grid(load_dataset(str(path.resolve()), split="all")))
    return Samples(model=path)


def _without_grid(dataset: ImageDataset) -> ImageDataset:
    """The images without grid.png, the overview that `mage generate` adds."""
    files = [bytes(name) for name in getattr(dataset, "files", [])]
    if b"grid.png" in files:
        return Subset(dataset, [index for index, name in enumerate(files) if name != b"grid.png"])
    return dataset


def random_subset(dataset: ImageDataset, count: int) -> ImageDataset:
    """A fixed random choice of `count` images; all images of a smaller set."""
    if count >= len(dataset):
        return dataset
    order = torch.randperm(len(dataset), generator=rng.generator(0, "real sample"))
    return Subset(dataset, order[:count].tolist())


def compare_with_real(
    seen: SeenImages, reference: Reference, extractor: Extractor, real: SeenImages | None
) -> Measured:
    """All metrics, and those of real images under the same names with the suffix _real."""
    generated = compare(seen, reference, extractor.name)
    if real is None:
        return generated
    originals = compare(real, reference, extractor.name, suffix="_real")
    return Measured(
        generated.metrics | originals.metrics,
        generated.protocols | originals.protocols,
        generated.details | originals.details,
        left_out=generated.left_out + originals.left_out,
        warnings=generated.warnings,  # those of the real images would repeat them
    )
