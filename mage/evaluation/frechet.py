"""Frechet distance between two sets of images, seen through a feature network (Heusel et al. 2017).

|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) for the means and covariances of the features. With EfficientNet-Lite0
features it is called fd_efflite0 and must not be compared with the FID, which uses another network.

Letters: n images, d feature width.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mage import atomic


class FeatureStatistics:
    """Mean and covariance of features that come in parts; float64, constant memory."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.empty(0, dtype=torch.float64)
        self._scatter = torch.empty(0, dtype=torch.float64)

    def update(self, features: Float[Tensor, "n d"]) -> None:
        """Add features. Parts are centred before they are merged, so that large means cost no precision."""
        x = features.detach().cpu().double()
        mean = x.mean(dim=0)
        centred = x - mean
        if self.count == 0:
            self.count, self._mean, self._scatter = len(x), mean, centred.T @ centred
            return
        total = self.count + len(x)
        step = mean - self._mean
        self._scatter += centred.T @ centred + torch.outer(step, step) * (self.count * len(x) / total)
        self._mean = self._mean + step * (len(x) / total)
        self.count = total

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """Mean of all features."""
        return self._mean

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Unbiased covariance. Raises ValueError for fewer than two images."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, not {self.count}")
        return self._scatter / (self.count - 1)

    def save(self, path: str | Path) -> None:
        """Write mu, sigma and count as .npz."""
        with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, mu=self.mean.numpy(), sigma=self.covariance.numpy(), count=self.count)

    @classmethod
    def load(cls, path: str | Path) -> "FeatureStatistics":
        """Read what `save` wrote. Raises ValueError for another file."""
        try:
            with np.load(path, allow_pickle=False) as data:
                found = cls()
                found.count = int(data["count"])
                found._mean = torch.from_numpy(data["mu"])
                found._scatter = torch.from_numpy(data["sigma"]) * (found.count - 1)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"{path} does not hold feature statistics ({type(error).__name__})") from None
        return found


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Frechet distance of two Gaussians; tr (C1 C2)^1/2 through the symmetric matrix C1^1/2 C2 C1^1/2."""
    root = _square_root(first.covariance)
    cross = torch.linalg.eigvalsh(root @ second.covariance @ root).clamp(min=0).sqrt().sum()
    trace = first.covariance.trace() + second.covariance.trace() - 2 * cross
    return max(0.0, float((first.mean - second.mean).square().sum() + trace))


def image_statistics(
    batches: Iterable[Float[Tensor, "n c h w"]], features: Callable[[Tensor], Tensor]
) -> FeatureStatistics:
    """Statistics of images in [0, 1], rounded to 8 bits as a PNG would be."""
    statistics = FeatureStatistics()
    for batch in batches:
        statistics.update(features(batch.float().clamp(0, 1).mul(255).round().div(255)))
    return statistics


def _square_root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
