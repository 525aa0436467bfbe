"""Authenticity: the share of samples that are not just variations of one training image (Alaa et al. 2022, section 4).

A sample counts as a copy if it is nearer to its nearest training image than that image is to the nearest other one.
Distances are those of pixels (`authentic_share`), which a shift of the image enlarges, and those of features
(`authenticity_...`), where the reference has to be the training images.

Letters: n samples, m training images, d pixels or features, c channels, h w pixels.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from mage.evaluation.generation_metrics import GENERATION_METRICS, Compared, GenerationMetric
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.evaluation.near_copies import as_rows, nearest_training_images, row_parts
from mage.evaluation.sample_metrics import SAMPLE_METRICS, SampleMetric, SamplesAndData

EXPLANATION = (
    "Share of generated images that are further from their nearest training image than that image is from the nearest "
    "other training image"
)


def authentic(
    samples: Float[Tensor, "n *shape"], training: Shaped[Tensor, "m *shape"], *, mirrored: bool = False
) -> Bool[Tensor, " n"]:
    """Which samples are further from their nearest training image (floats or uint8) than it is from the next other one.

    mirrored: mirror images count as training images too, but an image's own mirror image is no other one. Raises
    ValueError for fewer than two training images.
    """
    if len(training) < 2:
        raise ValueError(f"authenticity compares training images with each other; there are {len(training)}")
    nearest = nearest_training_images(samples, training, mirrored=mirrored)
    used, place = nearest.indices.unique(return_inverse=True)
    flips = (False, True) if mirrored else (False,)
    sources = [as_rows(training[used].flip(-1) if flip else training[used]) for flip in flips]
    apart = sources[0].new_full((len(used),), torch.inf)
    for start, rows in row_parts(training):
        here = (used >= start) & (used < start + len(rows))
        for source in sources:
            distances = torch.cdist(source, rows)
            distances[here, used[here] - start] = torch.inf
            apart = apart.minimum(distances.min(dim=1).values)
    return nearest.distances > apart[place]


@SAMPLE_METRICS.register("authenticity")
class PixelAuthenticity(SampleMetric):
    """Authenticity by distances of pixels."""

    metrics: ClassVar = {
        "authentic_share": Description("Authentic samples, pixels", f"{EXPLANATION}, in pixels.", "share", "higher")
    }

    def measure(self, subject: SamplesAndData) -> Iterator[Metric]:
        """The share."""
        if len(subject.train) < 2:
            raise NotMeasured("authentic_share: there are fewer than two training images")
        own = authentic(subject.samples, subject.train, mirrored=subject.mirrored)
        protocol = f"pixel L2, {len(own):,} samples, {len(subject.train):,} training images"
        protocol += " and their mirror images" if subject.mirrored else ""
        yield self.metric("authentic_share", float(own.double().mean()), protocol)


@GENERATION_METRICS.register("authenticity")
class FeatureAuthenticity(GenerationMetric):
    """Authenticity by distances of features; only where the reference is the training images, all of them."""

    words: ClassVar = {
        "authenticity": Description(
            "Authentic samples, {network}", f"{EXPLANATION}, in the features of {{network}}.", "share", "higher"
        )
    }

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """The share, for a reference called train."""
        training, name = compared.reference.features, compared.name("authenticity")
        if compared.reference.name != "train":
            raise NotMeasured
        if training is None or len(training) < compared.reference.moments.count:
            raise NotMeasured(f"{name}: the reference does not hold the features of all training images")
        if len(training) < 2:
            raise NotMeasured(f"{name}: there are fewer than two training images")
        own = authentic(compared.samples.features, training)
        protocol = f"{len(own):,} images against {len(training):,} training images"
        yield self.named(compared, "authenticity", float(own.double().mean()), protocol, count=len(own))
