"""Kernel distance (KID): the squared maximum mean discrepancy of two sets of features (Binkowski et al. 2018).

Unlike the Frechet distance its estimate is unbiased, so it can be compared between sets of different sizes, and it may
be slightly negative for sets that agree.

Letters: n, m images, d feature width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class KernelDistance:
    """Mean over the subsets, and their standard deviation."""

    mean: float
    deviation: float


def kernel_distance(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "m d"],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> KernelDistance:
    """Mean over random subsets, with the kernel (x y / d + 1)^3; subsets are torch-fidelity's for the same seed.

    Raises ValueError if a set has fewer images than a subset.
    """
    if min(len(first), len(second)) < subset_size:
        raise ValueError(f"subsets of {subset_size} images cannot be drawn from {len(first)} and {len(second)}")
    random = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        x, y = (
            features[torch.from_numpy(random.choice(len(features), subset_size, replace=False))].double()
            for features in (first, second)
        )
        found.append(squared_mmd(x, y))
    return KernelDistance(float(np.mean(found)), float(np.std(found)))


def squared_mmd(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> float:
    """Unbiased squared maximum mean discrepancy of two sets of one size, with the cubic kernel."""
    n = len(x)

    def within(features: Tensor) -> Tensor:
        kernel = _kernel(features, features)
        return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))

    return float(within(x) + within(y) - 2 * _kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
