"""Images that are almost the same, and images that are like no other, by the distances of their features.

Distances are Euclidean between standardised features. They are computed in float64 and, for the nearest neighbours, as
the norm of the difference: in float32, by way of dot products, two equal rows come out at a distance of about a
thousandth of their norm.

Letters: n images, d feature width, k neighbours.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

NEIGHBOURS = 10
"""Number of neighbours whose mean distance tells how unusual an image is."""
DUPLICATE_SHARE = 0.5
"""Two images are near-duplicates if their distance is at most this share of the typical distance of neighbours."""
ROWS_AT_ONCE = 256


class Pair(NamedTuple):
    """Two images and their distance as a share of the typical distance of neighbours."""

    first: int
    second: int
    distance: float


@dataclass(frozen=True)
class Neighbourhood:
    """The nearest neighbours of every image, closest first."""

    index: Int64[Tensor, "n k"]
    distance: Float64[Tensor, "n k"]

    @property
    def typical(self) -> float:
        """The typical distance of neighbours: the median, over the images, of the mean distance to the neighbours.

        Where most images have copies alone for neighbours, the median over the others; 0 if all images are alike.
        """
        if not self.distance.numel():
            return 0.0
        means = self.distance.mean(dim=1)
        apart = means[means > 0]
        return float(means.median() or (apart.median() if len(apart) else 0.0))

    @property
    def unusualness(self) -> Float64[Tensor, " n"]:
        """Mean distance to the neighbours as a share of the typical one; 0 if all images are alike."""
        typical = self.typical
        return self.distance.mean(dim=1) / typical if typical else self.distance.new_zeros(len(self.distance))

    def near_duplicates(self) -> list[Pair]:
        """Pairs below DUPLICATE_SHARE, the closest first.

        Of an image with many copies, the pairs with its nearest neighbours are listed.
        """
        typical, found = self.typical, {}
        for image, place in (self.distance <= DUPLICATE_SHARE * typical).nonzero().tolist():
            other = int(self.index[image, place])
            found[min(image, other), max(image, other)] = float(self.distance[image, place]) / (typical or 1.0)
        return [Pair(*pair, share) for pair, share in sorted(found.items(), key=lambda item: (item[1], item[0]))]

    def outliers(self, count: int) -> list[int]:
        """The `count` most unusual images, the most unusual first."""
        return [int(index) for index in self.unusualness.argsort(descending=True, stable=True)[:count]]


def neighbourhood(x: Float64[Tensor, "n d"], neighbours: int = NEIGHBOURS) -> Neighbourhood:
    """The nearest neighbours of every row among the others; fewer for a small set."""
    count = len(x)
    k = max(0, min(neighbours, count - 1))
    squares = x.square().sum(dim=1)
    indices, distances = [], []
    for start in range(0, count, ROWS_AT_ONCE):
        rows = x[start : start + ROWS_AT_ONCE]
        rough = squares[None] - 2 * rows @ x.T  # without the rows' own squares, which do not change the order
        rough[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = torch.inf
        index = rough.topk(k, dim=1, largest=False).indices
        exact = (x[index] - rows[:, None]).norm(dim=2)
        order = exact.argsort(dim=1, stable=True)
        indices.append(index.gather(1, order))
        distances.append(exact.gather(1, order))
    if not indices:
        return Neighbourhood(torch.zeros(0, 0, dtype=torch.int64), x.new_zeros(0, 0))
    return Neighbourhood(torch.cat(indices), torch.cat(distances))
