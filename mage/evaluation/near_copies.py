"""Near copies: samples that are unusually close to a training image, by distance of the pixels.

Letters: n samples, m training images, c channels, h w pixels. `nearest_training_images` takes features as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import images, rng
from mage.data.datasets import spread
from mage.evaluation.confusion import wilson_interval
from mage.evaluation.metric import Description, Metric
from mage.evaluation.sample_metrics import SAMPLE_METRICS, SampleMetric, SamplesAndData

TEST_IMAGES = 1000
"""Most test images that give the threshold."""


@dataclass(frozen=True)
class Nearest:
    """Each sample's nearest training image, by Euclidean distance of the pixels."""

    distances: Float[Tensor, " n"]
    indices: Int[Tensor, " n"]


def nearest_training_images(
    samples: Float[Tensor, "n *shape"], training: Float[Tensor, "m *shape"], *, mirrored: bool = False
) -> Nearest:
    """Compare every sample with all training images, in chunks of samples; `mirrored`: with their mirror images too.

    The latter by mirroring the samples: a mirrored sample is as far from an image as the sample from its mirror image.
    """
    train_pixels = training.flatten(1).float()
    nearest = _nearest(samples, train_pixels)
    if mirrored:
        other = _nearest(samples.flip(-1), train_pixels)
        nearer = other.distances < nearest.distances
        distances = torch.where(nearer, other.distances, nearest.distances)
        nearest = Nearest(distances, torch.where(nearer, other.indices, nearest.indices))
    return nearest


def _nearest(samples: Tensor, train_pixels: Tensor) -> Nearest:
    distances, indices = [], []
    for part in samples.flatten(1).float().split(250):
        nearest = torch.cdist(part, train_pixels).argmin(dim=1)  # products, which are inexact where images are equal
        distances.append((part - train_pixels[nearest]).norm(dim=1))
        indices.append(nearest)
    return Nearest(torch.cat(distances), torch.cat(indices))


def near_copy_share(samples: Nearest, test: Nearest) -> float:
    """Share of samples closer to a training image than the first percentile of test images."""
    return float((samples.distances < test.distances.quantile(0.01)).double().mean())


def near_copy_interval(samples: Nearest, test: Nearest, *, draws: int = 1000) -> tuple[float, float]:
    """An interval that holds `near_copy_share` of endless samples and test images in at least 95 % of cases.

    By chance of the test images, whose first percentile is drawn anew (bootstrap), the share lies between two values;
    the interval goes from the lower bound of the smaller one to the upper bound of the larger one (Wilson).
    """
    random, count, total = rng.generator(0, "near copies"), len(samples.distances), len(test.distances)
    shares = torch.tensor(
        [
            near_copy_share(samples, Nearest(test.distances[drawn], test.indices[drawn]))
            for drawn in torch.randint(total, (draws, total), generator=random)
        ]
    )
    least, most = shares.quantile(torch.tensor([0.025, 0.975])).tolist()
    return wilson_interval(round(least * count), count)[0], wilson_interval(round(most * count), count)[1]


@SAMPLE_METRICS.register("near_copies")
class NearCopies(SampleMetric):
    """Share of samples that are unusually close to a training image."""

    metrics: ClassVar = {
        "near_copy_share": Description(
            "Near copies",
            "Share of generated images that are closer to a training image than the closest 1 % of real test images "
            "are.",
            "share",
            "lower",
        ),
        "near_copy_share_restored": Description(
            "Near copies, reconstructions",
            "The same for test images after the tokenizer, which copy nothing: tokens make images smoother, and smooth "
            "images are nearer to others.",
            "share",
        ),
    }

    def measure(self, subject: SamplesAndData) -> Iterator[Metric]:
        """The share; distance and index of each sample's nearest training image in the details."""
        train = images.to_float(subject.train)
        nearest = nearest_training_images(subject.samples, train, mirrored=subject.mirrored)
        test = images.to_float(subject.test[spread(len(subject.test), TEST_IMAGES)])
        real = nearest_training_images(test, train, mirrored=subject.mirrored)
        protocol = f"pixel L2, below the first percentile of {len(real.distances):,} test images"
        protocol += ", mirror images too" if subject.mirrored else ""
        details = {
            "distances": nearest.distances.tolist(),
            "training_images": nearest.indices.tolist(),
            "interval": list(near_copy_interval(nearest, real)),
        }
        yield self.metric("near_copy_share", near_copy_share(nearest, real), protocol, **details)
        if subject.restored is not None:
            control = nearest_training_images(subject.restored, train, mirrored=subject.mirrored)
            protocol = f"{len(control.distances):,} test images after the tokenizer; {protocol}"
            yield self.metric("near_copy_share_restored", near_copy_share(control, real), protocol)
