"""Frechet distance between two sets of images in the features of a network (Heusel et al. 2017).

|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) for the means and covariances of the features. With EfficientNet-Lite0
features it is called fd_efflite0 and must not be compared with the FID, which uses another network. It falls with the
number of images, even between two halves of one set: compare equal numbers of images only.

Letters: d feature width.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mage.evaluation.feature_statistics import FeatureStatistics
from mage.evaluation.generation_metrics import GENERATION_METRICS, Compared, GenerationMetric, distance
from mage.evaluation.metric import Metric, NotMeasured


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Frechet distance of two Gaussians; tr (C1 C2)^1/2 is computed from the symmetric matrix C1^1/2 C2 C1^1/2.

    Raises ValueError for statistics of different networks or widths, or of fewer than two images.
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
    """A warning if a set has no more images than the features have numbers, else "".

    With d or fewer images a covariance of d numbers is singular, and the distance depends mainly on their number.
    """
    smallest = min((statistics.count for statistics in sets if statistics.count), default=0)
    width = max((len(statistics.mean) for statistics in sets), default=0)
    if not 0 < smallest <= width:
        return ""
    return (
        f"{name} is of {smallest:,} images, too few for a covariance of {width:,} features: its value depends mainly "
        f"on their number. Compare it only with values of equally many images, take 10,000 images or more, or use the "
        "kernel distance"
    )


def _square_root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


@GENERATION_METRICS.register("frechet")
class FrechetDistance(GenerationMetric):
    """Frechet distance of features; with the Inception network of the FID it is the FID (Heusel et al. 2017)."""

    words: ClassVar = {"fd": distance("Fréchet distance"), "fid": distance("FID")}

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """The distance."""
        n, m = compared.samples.count, compared.reference.moments.count
        if 1 in (n, m):
            raise NotMeasured(f"{compared.name(self._word(compared))}: a single image has no covariance")
        images = f"{n:,} images against {f'{m:,} of ' if m else ''}{compared.reference.name}"
        moments = compared.samples.moments, compared.reference.moments
        few = "; too few, see the warnings" if too_few("", *moments) else ""
        yield self.named(compared, self._word(compared), frechet_distance(*moments), images + few)

    def warning(self, compared: Compared) -> str:
        """Warns of too few images for a covariance."""
        moments = compared.samples.moments, compared.reference.moments
        return too_few(compared.name(self._word(compared)), *moments)

    def _word(self, compared: Compared) -> str:
        return "fid" if compared.extractor == "inception" else "fd"
