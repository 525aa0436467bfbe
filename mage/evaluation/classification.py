"""Accuracy of a classifier: of its scores, and on a data set.

Letters: n images, c channels, h w pixels, k classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import images
from mage.data.datasets import ImageDataset
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.confusion import Confusion
from mage.evaluation.features import labels_of
from mage.evaluation.linear_head import LinearHead
from mage.evaluation.metric import Description

Scorer = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n k"]]
"""Images in [0, 1] -> class scores."""
FINE_TUNING = {
    "finetune_accuracy": Description(
        "Fine-tuning",
        "Test accuracy after encoder and head have learned the labels together.",
        "share",
        "higher",
        bar=True,
    )
}
"""The metric of `mage finetune`."""


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of a trained probe on the test images, from 0 to 1, with protocol and settings."""

    accuracy: float
    top5: float
    protocol: str
    settings: dict[str, Any]
    confusion: Confusion
    """Answers on the test images; the classes are called by their numbers."""
    head: LinearHead | None = field(default=None, compare=False)
    """The trained classifier, if it is linear."""

    @classmethod
    def of(
        cls,
        scores: Float[Tensor, "n k"],
        labels: Int[Tensor, " n"],
        protocol: str,
        settings: dict[str, Any],
        head: LinearHead | None = None,
    ) -> "ProbeResult":
        """The result of class scores on test images with these labels."""
        confusion = Confusion.of(scores.argmax(dim=1), labels, ())
        return cls(*accuracies(scores, labels), protocol, settings, confusion, head)


def accuracies(scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, from 0 to 1."""
    top = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    return float(top[:, 0].double().mean()), float(top.any(dim=1).double().mean())


@dataclass(frozen=True)
class Accuracy:
    """Accuracy from 0 to 1, and the number of images."""

    top1: float
    top5: float
    images: int
    confusion: Confusion
    """Answers by class."""


def classification_accuracy(
    classify: Scorer,
    dataset: ImageDataset,
    transform: TransformConfig,
    *,
    batch_size: int = 256,
    on_images: Callable[[int], None] | None = None,
) -> Accuracy:
    """Classify every readable image. Raises ValueError for a set without labels, or with more classes than scores."""
    labels_of(dataset)
    right5 = 0.0
    predicted, known = [], []
    for batch in evaluation_batches(dataset, build_transform(transform), batch_size=batch_size):
        scores, labels = classify(images.to_float(batch["images"])).float().cpu(), batch["labels"]
        if int(labels.max()) >= scores.shape[1]:
            raise ValueError(
                f"{dataset.name} has class {int(labels.max())}, but the classifier has {scores.shape[1]} classes"
            )
        right5 += accuracies(scores, labels)[1] * len(labels)
        predicted.append(scores.argmax(dim=1))
        known.append(labels)
        if on_images is not None:
            on_images(len(labels))
    confusion = Confusion.of(torch.cat(predicted), torch.cat(known), dataset.class_names)
    return Accuracy(confusion.right / confusion.images, right5 / confusion.images, confusion.images, confusion)
