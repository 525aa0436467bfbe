"""A map of images: features projected to the plane, so that images with similar features lie close together.

Letters: n images, d feature width, p principal components.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

COMPONENTS = 50
"""Largest number of principal components that t-SNE and k-means see."""
PERPLEXITY = 30.0
"""Number of neighbours that t-SNE keeps close; cut to a third of a small set."""
FEWEST = 8
"""Below this many images the map is of the first two principal components."""
SEED = 0


@dataclass(frozen=True)
class Projection:
    """Positions of images on a map."""

    positions: Float64[np.ndarray, "n 2"]
    """From 0 to 1 in both directions."""
    method: str
    """How they were found, in one sentence."""


def standardised(features: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    """Each feature with mean 0 and deviation 1; features that hardly vary become 0, not noise."""
    deviation = features.std(dim=0, correction=0)
    least = 1e-6 * float(deviation.max().clamp(min=1e-12))
    centred = features - features.mean(dim=0)
    return torch.where(deviation > least, centred / deviation.clamp(min=least), torch.zeros_like(centred))


def principal_components(x: Float64[Tensor, "n d"]) -> Float64[np.ndarray, "n p"]:
    """At most COMPONENTS principal components of centred rows, each with the sign of its largest loading positive."""
    values, vectors = torch.linalg.eigh(x.T @ x)
    order = values.argsort(descending=True)[: min(COMPONENTS, len(x), x.shape[1])]
    axes = vectors[:, order]
    signs = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    return np.asarray((x @ (axes * signs)).numpy())


def project(components: Float64[np.ndarray, "n p"]) -> Projection:
    """The map: t-SNE of the principal components, or their first two for a few images."""
    count, width = components.shape
    spread = float(np.abs(components - components[:1]).max()) if count else 0.0
    if count < FEWEST or spread == 0:
        plane = np.zeros((count, 2))
        plane[:, : min(2, width)] = components[:, :2]
        return Projection(_to_unit(plane), "The map shows the first two principal components of the features.")
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (count - 1) / 3)
    scaled = components / spread  # t-SNE is the same for any scale; large numbers would overflow in float32
    found = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED).fit_transform(scaled.astype(np.float32))
    method = (
        f"The map is made by t-SNE (perplexity {perplexity:.3g}, seed {SEED}) from the first {width} principal "
        "components of the features. Neighbours on it are alike; distances between far groups mean little."
    )
    return Projection(_to_unit(found.astype(np.float64)), method)


def _to_unit(plane: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Scaled to fill 0 to 1 in each direction; a direction without extent is at 0.5."""
    if not len(plane):
        return plane
    low, high = plane.min(axis=0), plane.max(axis=0)
    extent = np.where(high > low, high - low, 1.0)
    return np.where(high > low, (plane - low) / extent, 0.5)
