"""Statistics of a set of images for the metrics of generated images, from one pass.

Float64 sums are stored for Frechet distance and Inception Score, and features of a fixed number of images for kernel
distance, precision, recall, density and coverage, so that memory hardly depends on the number of images.

Letters: n m images, c channels, H W pixels, d feature width.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mage import images
from mage.evaluation.extractors import Extractor, Seen
from mage.evaluation.feature_statistics import FeatureStatistics
from mage.evaluation.inception_sums import InceptionScoreSums


@dataclass(frozen=True)
class GenerationProtocol:
    """Settings of the metrics, with the published values as defaults."""

    parts: int = 10
    """Parts of the images that the Inception Score averages over."""
    subsets: int = 100
    """Random subsets that the kernel distance averages over."""
    subset_size: int = 1000
    """Images per subset."""
    neighbours: int = 3
    """Neighbours that define the radius of a ball, for precision and recall."""
    density_neighbours: int = 5
    """Neighbours for density and coverage."""
    kept: int = 10_000
    """Largest number of images whose features are stored, for kernel distance and manifold metrics."""
    seed: int = 2020
    """Seed of the permutation and the subsets; the default of torch-fidelity."""


class SeenImages:
    """Statistics and stored features of a set of images."""

    def __init__(self, extractor: str, total: int, protocol: GenerationProtocol = GenerationProtocol()) -> None:
        """extractor: fingerprint of the feature network. total: number of images."""
        self.moments = FeatureStatistics(extractor)
        self.scores: InceptionScoreSums | None = None
        self.total, self.count = total, 0
        self.rounding: images.Rounding | None = None
        """Conversion of generated images to 8 bits; None for images from files."""
        self._protocol = protocol
        order = np.random.RandomState(protocol.seed).permutation(total)
        self._keep = torch.from_numpy(np.isin(np.arange(total), order[: protocol.kept]))
        self._features: list[Tensor] = []

    def update(self, seen: Seen) -> None:
        """Add the next images. Raises ValueError for more than `total`."""
        if self.count + len(seen.features) > self.total:
            raise ValueError(f"{self.total} images were announced, more came")
        features = seen.features.detach().float().cpu()
        self.moments.update(features)
        self._features.append(features[self._keep[self.count : self.count + len(features)]])
        if seen.logits is not None and self.total >= self._protocol.parts:
            if self.scores is None:
                self.scores = InceptionScoreSums(self.total, parts=self._protocol.parts, seed=self._protocol.seed)
            self.scores.update(seen.logits)
        self.count += len(features)

    @property
    def features(self) -> Float[Tensor, "n d"]:
        """Stored features, in the order of the images."""
        return torch.cat(self._features) if self._features else torch.empty(0, 0)

    def save(self, path: str | Path) -> None:
        """Write mu, sigma, count, extractor and stored features as .npz, readable as a file of ADM or pytorch-fid."""
        self.moments.save(path, features=self.features)


@dataclass(frozen=True)
class Reference:
    """Statistics of the real images that generated images are compared with."""

    name: str
    """Part of the names of metrics, such as "test" or "val"."""
    moments: FeatureStatistics
    features: Float[Tensor, "m d"] | None
    """None if a file has mean and covariance only, which allows a Frechet distance but no other metric."""

    @classmethod
    def of(cls, name: str, seen: SeenImages) -> "Reference":
        """Reference from the statistics of a set of images."""
        return cls(name, seen.moments, seen.features)

    @classmethod
    def load(cls, path: str | Path, *, extractor: str) -> "Reference":
        """Read a file of `SeenImages.save`, or one of ADM or pytorch-fid (mu, sigma). Raises ValueError for another.

        The latter do not name their network: they are assumed to be of `extractor`, its fingerprint.
        """
        moments, features = FeatureStatistics.load_with_features(path)
        if not moments.extractor:
            moments.extractor = extractor
        return cls(Path(path).stem, moments, features)

    def check(self, extractor: Extractor) -> None:
        """Raise ValueError for statistics of another network, or of features of another width."""
        theirs, width = self.moments.extractor, len(self.moments.mean)
        if theirs != extractor.fingerprint:
            raise ValueError(f"the reference {self.name} has features of {theirs}, not of {extractor.fingerprint}")
        mine = extractor(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).features.shape[1]
        if width != mine:
            raise ValueError(f"the reference {self.name} has features of {width} numbers, {extractor.name} of {mine}")


def look_at(
    batches: Iterable[UInt8[Tensor, "n c H W"]],
    extractor: Extractor,
    total: int,
    *,
    protocol: GenerationProtocol = GenerationProtocol(),  # frozen
    on_images: Callable[[int], None] | None = None,
) -> SeenImages:
    """Statistics of `total` images (uint8) in batches. Raises ValueError for fewer or more images."""
    seen = SeenImages(extractor.fingerprint, total, protocol)
    for batch in batches:
        seen.update(extractor(batch))
        if on_images is not None:
            on_images(len(batch))
    if seen.count != total:
        raise ValueError(f"{total} images were announced, {seen.count} came")
    return seen
