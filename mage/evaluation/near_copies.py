"""Near copies: samples that are unusually close to a training image, by distance of the pixels.

Letters: n samples, m training images, c channels, h w pixels. `nearest_training_images` takes features as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
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
    samples: Float[Tensor, "n *shape"], training: Shaped[Tensor, "m *shape"], *, mirrored: bool = False
) -> Nearest:
    """Compare every sample with all training images, floats or uint8; `mirrored`: with their mirror images too.

    The latter by mirroring the samples: a mirrored sample is as far from an image as the sample from its mirror image.
    """
    nearest = _nearest(samples, training)
    if mirrored:
        nearest = _nearer(nearest, _nearest(samples.flip(-1), training))
    return nearest


def as_rows(pixels: Shaped[Tensor, "m *shape"]) -> Float[Tensor, "m d"]:
    """Images or features as rows of floats; uint8 becomes [0, 1]."""
    return (images.to_float(pixels) if pixels.dtype == torch.uint8 else pixels.float()).flatten(1)


def row_parts(
    training: Shaped[Tensor, "m *shape"], most_bytes: int = 2**28
) -> Iterator[tuple[int, Float[Tensor, "part d"]]]:
    """`as_rows` of some at a time, each part with the index of its first row: all of uint8 would need 4 times as much.

    Letters: part is the number of rows of one part.
    """
    step = max(1, most_bytes // (4 * training[0].numel()))
    for start in range(0, len(training), step):
        yield start, as_rows(training[start : start + step])


def _nearest(samples: Tensor, training: Tensor) -> Nearest:
    none = torch.zeros(len(samples), dtype=torch.int64, device=samples.device)
    best = Nearest(none + torch.inf, none)
    for start, rows in row_parts(training):
        distances, indices = [], []
        for part in as_rows(samples).split(250):
            index = torch.cdist(part, rows).argmin(dim=1)  # products, which are inexact where images are equal
            distances.append((part - rows[index]).norm(dim=1))
            indices.append(start + index)
        best = _nearer(best, Nearest(torch.cat(distances), torch.cat(indices)))
    return best


def _nearer(first: Nearest, second: Nearest) -> Nearest:
    closer = second.distances < first.distances
    distances = torch.where(closer, second.distances, first.distances)
    return Nearest(distances, torch.where(closer, second.indices, first.indices))


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
        train = subject.train
        nearest = nearest_training_images(subject.samples, train, mirrored=subject.mirrored)
        test = images.to_float(subject.test[spread(len(subject.test), TEST_IMAGES)])
        real = nearest_training_images(test, train, mirrored=subject.mirrored)
        protocol = f"pixel L2 to {len(train):,} training images, below the first percentile of "
        protocol += f"{len(real.distances):,} test images"
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
