"""How good generated images are, as the field measures it, from one pass over them.

Each image is seen once; what is kept are float64 sums (Frechet distance, Inception Score) and the features of a fixed
number of images (kernel distance, precision and its kin), so memory does not depend on how many images there are. Every
number carries the extractor, the reference and the number of images in its name: fd_efflite0_test10k.

Letters: n images, c channels, H W pixels, d feature width.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mage import images
from mage.evaluation.extractors import Extractor, Seen
from mage.evaluation.frechet import FeatureStatistics, frechet_distance, too_few
from mage.evaluation.inception_score import InceptionScoreSums
from mage.evaluation.kernel_distance import kernel_distance
from mage.evaluation.manifold import manifold


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


@dataclass
class GenerationQuality:
    """Metrics by name, and in one line each how they were measured."""

    metrics: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    warnings: list[str] = field(default_factory=list)
    """Which numbers should not be trusted, and why."""

    def add(self, name: str, value: float, protocol: str) -> None:
        """One more number."""
        self.metrics[name], self.protocols[name] = value, protocol


def compare(
    samples: SeenImages,
    reference: Reference,
    extractor: str,
    *,
    protocol: GenerationProtocol = GenerationProtocol(),  # frozen
    suffix: str = "",
) -> GenerationQuality:
    """All metrics of generated images against a reference.

    extractor: its short name; suffix: appended to every name, such as _real for the value of real images.
    """
    found = GenerationQuality()
    n, m = samples.count, reference.moments.count
    where = f"{n:,} images against {f'{m:,} of' if m else ''} {reference.name}".replace("  ", " ")
    bits = {None: "", "nearest": ", rounded to 8 bits", "truncate": ", truncated to 8 bits"}[samples.rounding]
    tail = f"{extractor}_{reference.name}{count_name(n)}{suffix}"
    frechet, kernel = ("fid", "kid") if extractor == "inception" else ("fd", "kd")
    found.add(f"{frechet}_{tail}", frechet_distance(samples.moments, reference.moments), where + bits)
    if warning := too_few(f"{frechet}_{tail}", samples.moments, reference.moments):
        found.warnings.append(warning)
    if samples.scores is None:
        found.left_out.append(f"is_{tail}: the extractor gives no class scores, or there are too few images")
    else:
        score = samples.scores.score()
        found.add(f"is_{tail}", score.mean, f"{n:,} images in {protocol.parts} parts, +- {score.deviation:.3g}{bits}")
    if reference.features is None:
        found.left_out.append(
            f"{kernel}_{tail}, precision and its kin: the reference holds no features of single images"
        )
        return found
    x, y = samples.features, reference.features
    size = min(protocol.subset_size, len(x), len(y))
    kid = kernel_distance(x, y, subsets=protocol.subsets, subset_size=size, seed=protocol.seed)
    how = f"{protocol.subsets} subsets of {size:,} of {len(x):,} and {len(y):,} images, +- {kid.deviation:.3g}"
    found.add(f"{kernel}_{tail}", kid.mean, how + bits)
    most = max(protocol.neighbours, protocol.density_neighbours)
    if min(len(x), len(y)) <= most:
        found.left_out.append(f"precision_{tail} and its kin: {min(len(x), len(y))} images have no {most} neighbours")
        return found
    shape = manifold(x, y, neighbours=protocol.neighbours, density_neighbours=protocol.density_neighbours)
    for name, value, k in (
        ("precision", shape.precision, protocol.neighbours),
        ("recall", shape.recall, protocol.neighbours),
        ("density", shape.density, protocol.density_neighbours),
        ("coverage", shape.coverage, protocol.density_neighbours),
    ):
        found.add(f"{name}_{tail}", value, f"{len(x):,} images against {len(y):,}, {k} neighbours{bits}")
    return found


def count_name(count: int) -> str:
    """10,000 -> 10k, 500 -> 500."""
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)
