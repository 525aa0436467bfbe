"""Frechet distance between two sets of images, seen through a feature network (Heusel et al. 2017).

|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) for the means and covariances of the features. With EfficientNet-Lite0
features it is called fd_efflite0 and must not be compared with the FID, which uses another network. It shrinks as
sets grow, even between two halves of one set: compare equal numbers of images only.

Letters: n images, c channels, h w pixels, d feature width.
"""

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mage import atomic, images
from mage.nn.backbones import PooledFeatures, efflite0


def too_few(name: str, *sets: "FeatureStatistics") -> str:
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


class FeatureStatistics:
    """Mean and covariance of features that come in parts; float64, constant memory.

    extractor: what made the features; statistics of two different extractors are never compared.
    """

    def __init__(self, extractor: str = "") -> None:
        self.extractor = extractor
        self.count = 0
        self._mean = torch.empty(0, dtype=torch.float64)
        self._scatter = torch.empty(0, dtype=torch.float64)

    def update(self, features: Float[Tensor, "n d"]) -> None:
        """Add features. Parts are centred before they are merged, so that large means cost no precision."""
        if not len(features):
            return
        if not self.count and len(self._mean):
            raise ValueError("statistics that do not say of how many images they are cannot take more")
        x = features.detach().cpu().double()
        if self.count and x.shape[1] != len(self._mean):
            raise ValueError(f"features so far have {len(self._mean)} numbers, these have {x.shape[1]}")
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
        if self.count < 2 and (self.count or not len(self._mean)):
            raise ValueError(f"a covariance needs at least 2 images, not {self.count}")
        return self._scatter / max(1, self.count - 1)

    def save(self, path: str | Path, *, features: Float[Tensor, "n d"] | None = None) -> None:
        """Write mu, sigma, count and extractor as .npz; features: of some images, to be kept with them."""
        arrays = {"mu": self.mean.numpy(), "sigma": self.covariance.numpy()}
        if features is not None:
            arrays["features"] = features.numpy()
        with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays, count=np.array(self.count), extractor=np.array(self.extractor))

    @classmethod
    def load(cls, path: str | Path) -> "FeatureStatistics":
        """Read what `save` wrote, or a file with mu and sigma from elsewhere. Raises ValueError for another file."""
        return cls.load_with_features(path)[0]

    @classmethod
    def load_with_features(cls, path: str | Path) -> tuple["FeatureStatistics", Float[Tensor, "n d"] | None]:
        """The same, with the features of single images if they were kept.

        Files from elsewhere (ADM, pytorch-fid) say neither how many images they saw, `count` is 0 then, nor through
        which network, `extractor` is "".
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
                found = cls(str(data["extractor"]) if "extractor" in data else "")
                found.count = int(data["count"]) if "count" in data else 0
                found._mean = torch.from_numpy(data["mu"]).double()
                found._scatter = torch.from_numpy(data["sigma"]).double() * max(1, found.count - 1)
                features = torch.from_numpy(data["features"]) if "features" in data else None
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} does not hold feature statistics ({type(error).__name__})") from None
        if found._scatter.shape != (len(found._mean), len(found._mean)):
            raise ValueError(f"{path} does not hold feature statistics: mu and sigma are not of one width")
        return found, features


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


def image_statistics(
    batches: Iterable[Float[Tensor, "n c h w"]], features: Callable[[Tensor], Tensor], *, extractor: str = ""
) -> FeatureStatistics:
    """Statistics of images in [0, 1], rounded to 8 bits as a PNG would be."""
    statistics = FeatureStatistics(extractor)
    for batch in batches:
        statistics.update(features(images.to_float(images.to_uint8(batch))))
    return statistics


ImageSet = FeatureStatistics | Iterable[Float[Tensor, "n c h w"]]
"""Ready statistics, or batches of images in [0, 1]."""


def frechet_efflite0(first: ImageSet, second: ImageSet, *, size: int = 64) -> float:
    """fd_efflite0 between two sets: EfficientNet-Lite0's pooled features at `size` pixels per side."""
    pooled: PooledFeatures | None = None
    found = []
    for images_or_statistics in (first, second):
        if not isinstance(images_or_statistics, FeatureStatistics):
            pooled = pooled or PooledFeatures(efflite0(), size=size)
            images_or_statistics = efflite0_statistics(images_or_statistics, pooled)
        found.append(images_or_statistics)
    return frechet_distance(*found)


def efflite0_statistics(batches: Iterable[Float[Tensor, "n c h w"]], pooled: PooledFeatures) -> FeatureStatistics:
    """Statistics named after the network and image size, worth saving where one set is compared many times.

    The network follows the device of the images.
    """
    return image_statistics(
        batches, lambda batch: pooled.to(batch.device)(batch), extractor=f"efflite0_{pooled.size}px"
    )


def _square_root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
