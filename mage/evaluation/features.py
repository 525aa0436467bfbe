"""Features of a whole data set, computed once and shared by every probe (paper, section 4.3).

Letters: n images, d feature width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import images
from mage.data.datasets import ImageDataset
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform


class Features(NamedTuple):
    """Features and labels, aligned."""

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]


def extract_features(
    function: Callable[[Tensor], Tensor],
    dataset: ImageDataset,
    transform: TransformConfig,
    *,
    batch_size: int = 256,
    on_images: Callable[[int], None] | None = None,
) -> Features:
    """`function` (images in [0, 1] -> vectors) on every readable image. Raises ValueError for a set without labels."""
    if dataset.labels is None:
        raise ValueError(f"{dataset.name} has no labels: put each class's images into a folder of its own")
    parts, labels = [], []
    for batch in evaluation_batches(dataset, build_transform(transform), batch_size=batch_size):
        parts.append(function(images.to_float(batch["images"])).float().flatten(1).cpu())
        labels.append(batch["labels"])
        if on_images is not None:
            on_images(len(batch["labels"]))
    return Features(torch.cat(parts), torch.cat(labels))


def check_pair(train: Features, test: Features) -> int:
    """The number of classes. Raises ValueError if the sets cannot be compared."""
    if train.features.shape[1] != test.features.shape[1]:
        raise ValueError(f"features have {train.features.shape[1]} and {test.features.shape[1]} numbers: must agree")
    classes = int(train.labels.max()) + 1
    if classes < 2:
        raise ValueError("the training images have a single class; a probe needs at least two")
    if int(test.labels.max()) >= classes:
        raise ValueError(f"the test images have class {int(test.labels.max())}, which no training image has")
    return classes
