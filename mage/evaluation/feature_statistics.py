"""Mean and covariance of the features of a set of images, for Frechet distances, and their file format.

Letters: n images, d feature width.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mage import atomic
from mage.array_files import read_npz


class FeatureStatistics:
    """Mean and covariance of features, updated in batches; float64, constant memory.

    extractor: fingerprint of the feature network; statistics of different networks are not comparable.
    """

    def __init__(self, extractor: str = "") -> None:
        self.extractor = extractor
        self.count = 0
        self._mean = torch.empty(0, dtype=torch.float64)
        self._scatter = torch.empty(0, dtype=torch.float64)

    def update(self, features: Float[Tensor, "n d"]) -> None:
        """Add features. Batches are centred before they are merged, so that large means cost no precision.

        Raises ValueError for features of another width, and for statistics read from a file without a count.
        """
        if not len(features):
            return
        if not self.count and len(self._mean):
            raise ValueError(
                "these statistics were read from a file without a count of images: features cannot be added to them"
            )
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
        """Write mu, sigma, count and extractor as .npz; features: of single images, stored with them."""
        arrays = {"mu": self.mean.numpy(), "sigma": self.covariance.numpy()}
        if features is not None:
            arrays["features"] = features.numpy()
        with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays, count=np.array(self.count), extractor=np.array(self.extractor))

    @classmethod
    def load_with_features(cls, path: str | Path) -> tuple["FeatureStatistics", Float[Tensor, "n d"] | None]:
        """The statistics of a file, and features of single images if it has them. Raises ValueError for any other file.

        Files of ADM and pytorch-fid contain neither the number of images nor the network: then `count` is 0 and
        `extractor` is "".
        """
        try:
            data = read_npz(path)
            read = cls(str(data["extractor"]) if "extractor" in data else "")
            read.count = int(data["count"]) if "count" in data else 0
            read._mean = torch.from_numpy(data["mu"]).double()
            read._scatter = torch.from_numpy(data["sigma"]).double() * max(1, read.count - 1)
            features = torch.from_numpy(data["features"]) if "features" in data else None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path} does not hold feature statistics ({type(error).__name__})") from None
        if read._mean.ndim != 1 or read._scatter.shape != (len(read._mean), len(read._mean)):
            raise ValueError(f"{path} does not hold feature statistics: mu and sigma are not of one width")
        if features is not None and (features.ndim != 2 or features.shape[1] != len(read._mean)):
            raise ValueError(f"{path} does not hold feature statistics: mu and features are not of one width")
        return read, features
