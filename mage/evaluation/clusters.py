"""Groups of similar images: k-means on the principal components of their features.

Letters: n images, p principal components.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

MOST_CLUSTERS = 12
"""Largest number of clusters that is tried."""
SCORED = 1000
"""Largest number of images on which the silhouette is computed."""
SEED = 0


@dataclass(frozen=True)
class Clusters:
    """Groups of images, the largest first."""

    labels: Int64[np.ndarray, " n"]
    """Number of each image's cluster."""
    distances: Float64[np.ndarray, " n"]
    """Distance of each image from the centre of its cluster."""
    method: str
    """How their number was found, in one sentence."""

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    def members(self, cluster: int) -> list[int]:
        """Images of a cluster, those closest to its centre first."""
        inside = np.flatnonzero(self.labels == cluster)
        return [int(index) for index in inside[np.argsort(self.distances[inside], kind="stable")]]


def find_clusters(components: Float64[np.ndarray, "n p"], count: int | None = None) -> Clusters:
    """k-means with `count` clusters; by default with the number, from 2 to MOST_CLUSTERS, of the largest silhouette.

    There are never more clusters than different images. Raises ValueError for more clusters than images.
    """
    different = len(np.unique(components, axis=0))
    if count is not None and not 1 <= count <= len(components):
        raise ValueError(f"there can be 1 to {len(components)} clusters of {len(components)} images, not {count}")
    if count is not None:
        method = f"k-means with {count} clusters, as asked for."
        return _ordered(components, _labels(components, min(count, different)), method)
    candidates = [number for number in range(2, MOST_CLUSTERS + 1) if number < different]
    if not candidates:
        return _ordered(components, np.zeros(len(components), np.int64), "Too few different images for clusters.")
    from sklearn.metrics import silhouette_score

    scored = np.random.default_rng(SEED).permutation(len(components))[:SCORED]
    found, scores = {}, {}
    for number in candidates:
        found[number] = _labels(components, number)
        seen = len(np.unique(found[number][scored]))
        scores[number] = silhouette_score(components[scored], found[number][scored]) if 1 < seen < len(scored) else -1.0
    best = max(candidates, key=lambda number: scores[number])
    method = (
        f"k-means; of 2 to {candidates[-1]} clusters, {best} have the largest mean silhouette ({scores[best]:.2f}; "
        "1: far apart, 0: touching)."
    )
    return _ordered(components, found[best], method)


def _labels(components: Float64[np.ndarray, "n p"], count: int) -> Int64[np.ndarray, " n"]:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(count, n_init=4, random_state=SEED).fit_predict(components)).astype(np.int64)


def _ordered(components: Float64[np.ndarray, "n p"], labels: Int64[np.ndarray, " n"], method: str) -> Clusters:
    """Clusters renumbered by size, with the distances from their centres."""
    sizes = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    labels = rank[labels]
    centres = np.stack([components[labels == cluster].mean(axis=0) for cluster in range(len(sizes))])
    return Clusters(labels, np.linalg.norm(components - centres[labels], axis=1), method)
