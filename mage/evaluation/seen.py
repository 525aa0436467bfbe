"""What metrics of generated images need of a set of images, from one pass over it.

Each image is seen once; what is kept are float64 sums (Frechet distance, Inception Score) and the features of a fixed
number of images (kernel distance, precision and its kin), so memory does not depend on how many images there are.

Letters: n images, c channels, H W pixels, d feature width.
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
    """The knobs of the metrics, with the published values as defaults."""

    parts: int = 10
    """Parts of the images that the Inception Score averages over."""
    subsets: int = 100
    """Random subsets that the kernel distance averages over."""
    subset_size: int = 1000
    """Images of such a subset."""
    neighbours: int = 3
    """Neighbours that make a manifold, for precision and recall."""
    density_neighbours: int = 5
    """The same for density and coverage."""
    kept: int = 10_000
    """Images, at most, whose features are kept: the kernel distance and the manifolds are measured on these."""
    seed: int = 2020
    """Of the permutation and the subsets; torch-fidelity's."""


class SeenImages:
    """What one pass over a set of images leaves behind."""

    def __init__(self, extractor: str, total: int, protocol: GenerationProtocol = GenerationProtocol()) -> None:
        """extractor: its fingerprint. total: how many images will come."""
        self.moments = FeatureStatistics(extractor)
        self.scores: InceptionScoreSums | None = None
        self.total, self.count = total, 0
        self.rounding: images.Rounding | None = None
        """How generated floats became 8 bits; None where they came as such, from files."""
        self._protocol = protocol
        order = np.random.RandomState(protocol.seed).permutation(total)
        self._keep = torch.from_numpy(np.isin(np.arange(total), order[: protocol.kept]))
        self._features: list[Tensor] = []

    def update(self, seen: Seen) -> None:
        """Add the next images. Raises ValueError for more than were announced."""
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
        """Features of the images that were kept, in order."""
        return torch.cat(self._features) if self._features else torch.empty(0, 0)

    def save(self, path: str | Path) -> None:
        """Write mu, sigma, count, extractor and the kept features as .npz, which readers of ADM's files understand."""
        self.moments.save(path, features=self.features)


@dataclass(frozen=True)
class Reference:
    """What generated images are compared with."""

    name: str
    """In the names of metrics, such as "test" or "val"."""
    moments: FeatureStatistics
    features: Float[Tensor, "m d"] | None
    """None where a file holds mean and covariance only: then there is a Frechet distance and nothing else."""

    @classmethod
    def of(cls, name: str, seen: SeenImages) -> "Reference":
        """A set of images that was looked at."""
        return cls(name, seen.moments, seen.features)

    @classmethod
    def load(cls, path: str | Path, *, extractor: str) -> "Reference":
        """A file written by `SeenImages.save`, or one in the layout of ADM's and pytorch-fid's (mu, sigma).

        Those do not say what made their features; they are taken for `extractor`'s if the widths agree.
        """
        moments, features = FeatureStatistics.load_with_features(path)
        if not moments.extractor:
            moments.extractor = extractor
        return cls(Path(path).stem, moments, features)


def look_at(
    batches: Iterable[UInt8[Tensor, "n c H W"]],
    extractor: Extractor,
    total: int,
    *,
    protocol: GenerationProtocol = GenerationProtocol(),  # frozen
    on_images: Callable[[int], None] | None = None,
) -> SeenImages:
    """One pass over `total` images of 8 bits, as a PNG has them. Raises ValueError if there are fewer or more."""
    seen = SeenImages(extractor.fingerprint, total, protocol)
    for batch in batches:
        seen.update(extractor(batch))
        if on_images is not None:
            on_images(len(batch))
    if seen.count != total:
        raise ValueError(f"{total} images were announced, {seen.count} came")
    return seen
