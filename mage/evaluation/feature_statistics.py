"""Mean and covariance of the features of a set of images: what a Frechet distance needs, and a file for it.

Letters: n images, d feature width.
"""

import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mage import atomic


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
        """Write mu, sigma, count and extractor as .npz; features: of single images, to be kept with them."""
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
                read = cls(str(data["extractor"]) if "extractor" in data else "")
                read.count = int(data["count"]) if "count" in data else 0
                read._mean = torch.from_numpy(data["mu"]).double()
                read._scatter = torch.from_numpy(data["sigma"]).double() * max(1, read.count - 1)
                features = torch.from_numpy(data["features"]) if "features" in data else None
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} does not hold feature statistics ({type(error).__name__})") from None
        if read._mean.ndim != 1 or read._scatter.shape != (len(read._mean), len(read._mean)):
            raise ValueError(f"{path} does not hold feature statistics: mu and sigma are not of one width")
        if features is not None and (features.ndim != 2 or features.shape[1] != len(read._mean)):
            raise ValueError(f"{path} does not hold feature statistics: mu and features are not of one width")
        return read, features
