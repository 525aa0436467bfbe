"""Is a sample new, or remembered? Its nearest training image in pixels tells.

Letters: n, m images, c channels, h w pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import images
from mage.evaluation.metric import Description, Metric
from mage.evaluation.sample_metrics import SAMPLE_METRICS, SampleMetric, SamplesAndData

TEST_IMAGES = 1000


@dataclass(frozen=True)
class Nearest:
    """Each sample's nearest training image, by Euclidean distance of the pixels."""

    distances: Float[Tensor, " n"]
    indices: Int[Tensor, " n"]


def nearest_training_images(samples: Float[Tensor, "n c h w"], training: Float[Tensor, "m c h w"]) -> Nearest:
    """Search all training images, in chunks."""
    bank = training.flatten(1).float()
    parts = [torch.cdist(part, bank).min(dim=1) for part in samples.flatten(1).float().split(250)]
    return Nearest(torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts]))


def near_copy_share(samples: Nearest, test: Nearest) -> float:
    """Share of samples nearer to a training image than the nearest one per cent of real test images are."""
    return float((samples.distances < test.distances.quantile(0.01)).double().mean())


@SAMPLE_METRICS.register("near_copies")
class NearCopies(SampleMetric):
    """The share of samples that come suspiciously near."""

    metrics: ClassVar = {
        "near_copy_share": Description(
            "Near copies",
            "Share of generated images that are closer to a training image than the closest 1 % of real test images "
            "are.",
            "share",
            "lower",
        )
    }

    def measure(self, subject: SamplesAndData) -> Iterator[Metric]:
        """The share; the distances are in details, with the number of the nearest training image."""
        train = images.to_float(subject.train)
        near = nearest_training_images(subject.samples, train)
        real = nearest_training_images(images.to_float(subject.test[:TEST_IMAGES]), train)
        protocol = f"pixel L2, below the first percentile of {len(real.distances):,} test images"
        details = {"distances": near.distances.tolist(), "training_images": near.indices.tolist()}
        yield self.metric("near_copy_share", near_copy_share(near, real), protocol, **details)
