"""Frechet distance between two sets of images, seen through a feature network (Heusel et al. 2017).

|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) for the means and covariances of the features. With EfficientNet-Lite0
features it is called fd_efflite0 and must not be compared with the FID, which uses another network. It shrinks as
sets grow, even between two halves of one set: compare equal numbers of images only.

Letters: d feature width.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mage.evaluation.feature_statistics import FeatureStatistics
from mage.evaluation.generation_metrics import GENERATION_METRICS, Compared, GenerationMetric, distance
from mage.evaluation.metric import Metric


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Frechet distance of two Gaussians; tr (C1 C2)^1/2 through the symmetric matrix C1^1/2 C2 C1^1/2.

    Raises ValueError for statistics of different feature networks.
    """
    if first.extractor != second.extractor and first.extractor and second.extractor:
        raise ValueError(f"features of {first.extractor} cannot be compared with features of {second.extractor}")
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"features have {len(first.mean)} and {len(second.mean)} numbers: must agree")
    root = _square_root(first.covariance)
    cross = torch.linalg.eigvalsh(root @ second.covariance @ root).clamp(min=0).sqrt().sum()
    trace = first.covariance.trace() + second.covariance.trace() - 2 * cross
    return max(0.0, float((first.mean - second.mean).square().sum() + trace))


def too_few(name: str, *sets: FeatureStatistics) -> str:
    """A warning where a set has fewer images than the features have numbers; "" where all have enough.

    A covariance of d numbers needs more than d images: with fewer, most of the distance measures how few there are.
    """
    smallest = min((one.count for one in sets if one.count), default=0)
    width = max((len(one.mean) for one in sets), default=0)
    if not 0 < smallest <= width:
        return ""
    return (
        f"{name} is of {smallest:,} images, too few for a covariance of {width:,} features: its value says more about "
        f"their number than about the images. Compare it only with values of equally many, or take 10,000 and more; a "
        "kernel distance can do with fewer"
    )


def _square_root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


@GENERATION_METRICS.register("frechet")
class FrechetDistance(GenerationMetric):
    """Of means and covariances of features; on the FID's Inception it is the FID (Heusel et al. 2017)."""

    words: ClassVar = {"fd": distance("Fréchet distance"), "fid": distance("FID")}

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """The distance."""
        n, m = compared.samples.count, compared.reference.moments.count
        images = f"{n:,} images against {f'{m:,} of ' if m else ''}{compared.reference.name}"
        value = frechet_distance(compared.samples.moments, compared.reference.moments)
        yield self.named(compared, self._word(compared), value, images)

    def warning(self, compared: Compared) -> str:
        """Of too few images for a covariance."""
        moments = compared.samples.moments, compared.reference.moments
        return too_few(compared.name(self._word(compared)), *moments)

    def _word(self, compared: Compared) -> str:
        return "fid" if compared.extractor == "inception" else "fd"
