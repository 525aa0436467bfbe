"""Features of a whole data set, computed once and shared by all probes (paper, section 4.3).

Letters: n images, c channels, h w pixels, d feature width.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import images
from mage.data.datasets import ImageDataset, Labels
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.models.pooling import Pool


class Features(NamedTuple):
    """Features and labels of the same images."""

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]


@runtime_checkable
class FeatureModel(Protocol):
    """A model with features, such as mage.pipeline.Mage."""

    def features(self, images: Float[Tensor, "n c h w"], pool: Pool = "mean") -> Float[Tensor, "n d"]:
        """Images in [0, 1] -> one vector per image."""


def extract_features(
    model: FeatureModel | Callable[[Tensor], Tensor],
    dataset: ImageDataset,
    transform: TransformConfig,
    *,
    pool: Pool = "mean",
    batch_size: int = 256,
    num_workers: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> Features:
    """Features (float32, on the CPU) and labels of every readable image, in order.

    model: with a method `features(images, pool)`, or a function from images in [0, 1] to tensors (n, ...), which are
    flattened; `pool` is for the former only.
    num_workers: threads that read images ahead; 0: as many as are worth it. The result does not depend on it.
    on_images: called with the number of images after every batch.
    Raises NoClasses for a set without labels, and ValueError for one without a readable image.
    """
    labels_of(dataset)  # before anything is computed
    parts, labels = [], []
    batches = evaluation_batches(
        dataset, build_transform(transform), batch_size=batch_size, threads=num_workers or None
    )
    for batch in batches:
        pixels = images.to_float(batch["images"])
        features = model.features(pixels, pool) if isinstance(model, FeatureModel) else model(pixels)
        parts.append(features.float().flatten(1).cpu())
        labels.append(batch["labels"])
        if on_images is not None:
            on_images(len(batch["labels"]))
    return Features(torch.cat(parts), torch.cat(labels))


class NoClasses(ValueError):
    """Labels of which no classifier can be trained or measured, with the reason."""


def labels_of(dataset: ImageDataset) -> Labels:
    """The label of every image. Raises NoClasses for a data set without labels."""
    if dataset.labels is None:
        raise NoClasses(f"{dataset.name} has no labels: put each class's images into a folder of its own")
    return dataset.labels


def check_pair(train: Features, test: Features) -> int:
    """The number of classes. Raises ValueError for other widths, and NoClasses for labels as `check_labels`."""
    if train.features.shape[1] != test.features.shape[1]:
        raise ValueError(f"features have {train.features.shape[1]} and {test.features.shape[1]} numbers: must agree")
    return check_labels(train.labels, test.labels)


def check_labels(train: Int[Tensor, " n"], test: Int[Tensor, " m"]) -> int:
    """The number of classes. Raises NoClasses for empty sets, one class, or a last class without training images."""
    if not len(train) or not len(test):
        raise NoClasses("a probe needs at least one training and one test image")
    classes = int(train.max()) + 1
    if train.min() == train.max():
        raise NoClasses("the training images have a single class; a probe needs at least two")
    if int(test.max()) >= classes:
        raise NoClasses(f"the test images have class {int(test.max())}, which no training image has")
    return classes
