"""Precision, recall, density, coverage: fidelity and variety separately (Kynkaanniemi et al. 2019, Naeem et al. 2020).

A set of features defines a manifold: the union of balls around its images with the distance to the k-th nearest other
image as radius. Precision: share of generated images inside the real manifold. Recall: share of real images inside the
generated manifold. Density: number of real balls that contain a generated image, over k; it can exceed 1. Coverage:
share of real balls that contain a generated image. All depend on the number of images; compare equal numbers only.

An image on the edge of a ball is inside it for precision and recall and outside it for density and coverage, as in the
code of either paper.

Letters: n generated, m real images, d feature width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mage.evaluation.generation_metrics import GENERATION_METRICS, Compared, GenerationMetric
from mage.evaluation.metric import Description, Metric, NotMeasured


@dataclass(frozen=True)
class Manifold:
    """Precision, recall and coverage from 0 to 1, and density."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(
    generated: Float[Tensor, "n d"],
    real: Float[Tensor, "m d"],
    *,
    neighbours: int = 3,
    density_neighbours: int = 5,
    chunk: int = 2000,
) -> Manifold:
    """All four; distances are computed in chunks of rows, so that memory is linear in the size of a set.

    neighbours: k of precision and recall; density_neighbours: k of density and coverage; defaults as published.
    Raises ValueError for sets that are not larger than the neighbourhood.
    """
    most = max(neighbours, density_neighbours)
    if min(len(generated), len(real)) <= most:
        raise ValueError(f"neighbourhoods of {most} need more than {most} images, not {len(generated)} and {len(real)}")
    # Far from 0, distances are small compared to the features: both sets are shifted near 0 first, without rounding.
    origin = real[0].double()
    real, generated = real.double() - origin, generated.double() - origin
    wide, tight = radii(real, (neighbours, density_neighbours), chunk)
    (generated_radii,) = radii(generated, (neighbours,), chunk)
    inside, balls, recalled = 0, 0, 0
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part in generated.split(chunk):
        distances = torch.cdist(part, real)
        inside += int((distances <= wide).any(dim=1).sum())
        within = distances < tight
        balls += int(within.sum())
        covered |= within.any(dim=0)
    for part in real.split(chunk):
        recalled += int((torch.cdist(part, generated) <= generated_radii).any(dim=1).sum())
    return Manifold(
        inside / len(generated),
        recalled / len(real),
        balls / (density_neighbours * len(generated)),
        float(covered.double().mean()),
    )


def radii(features: Float[Tensor, "n d"], neighbours: tuple[int, ...], chunk: int = 2000) -> list[Float[Tensor, " n"]]:
    """Each image's distance to its k-th nearest other image, for every k of `neighbours`."""
    distances: list[list[Tensor]] = [[] for _ in neighbours]
    for part in features.split(chunk):
        # the first of these is the image itself
        nearest = torch.cdist(part, features).topk(max(neighbours) + 1, dim=1, largest=False).values
        for k, values in zip(neighbours, distances, strict=True):
            values.append(nearest[:, k])
    return [torch.cat(values) for values in distances]


@GENERATION_METRICS.register("manifold")
class ManifoldShares(GenerationMetric):
    """Precision, recall, density and coverage (Kynkaanniemi et al. 2019, Naeem et al. 2020)."""

    words: ClassVar = {
        "precision": Description(
            "Precision",
            "Share of {samples} samples that lie among real images in the features of {network}: fidelity.",
            "share",
            "higher",
        ),
        "recall": Description(
            "Recall",
            "Share of real images that lie among {samples} samples in the features of {network}: variety.",
            "share",
            "higher",
        ),
        "density": Description(
            "Density",
            "In how many neighbourhoods of real images a sample lies, in the features of {network}; about 1 for real "
            "images ({samples} samples).",
            better="higher",
        ),
        "coverage": Description(
            "Coverage",
            "Share of real images in whose neighbourhood one of {samples} samples lies, in the features of {network}.",
            "share",
            "higher",
        ),
    }

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """The four numbers."""
        protocol, names = compared.protocol, f"{compared.name('precision')}, recall, density and coverage"
        if compared.reference.features is None:
            raise NotMeasured(f"{names}: the reference holds no features of single images")
        x, y = compared.samples.features, compared.reference.features
        most = max(protocol.neighbours, protocol.density_neighbours)
        if min(len(x), len(y)) <= most:
            raise NotMeasured(f"{names}: {min(len(x), len(y))} images have no {most} neighbours")
        shares = manifold(x, y, neighbours=protocol.neighbours, density_neighbours=protocol.density_neighbours)
        for word in self.words:
            k = protocol.neighbours if word in ("precision", "recall") else protocol.density_neighbours
            images = f"{len(x):,} images against {len(y):,}"
            yield self.named(compared, word, getattr(shares, word), f"{images}, {k} neighbours", count=len(x))
