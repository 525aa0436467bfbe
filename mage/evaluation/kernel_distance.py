"""Kernel distance (KID): the squared maximum mean discrepancy of two sets of features (Binkowski et al. 2018).

Unlike the Frechet distance its estimate is unbiased, so that it can be compared between sets of different sizes, and it
can be slightly negative for sets of the same distribution.

Letters: n, m images, d feature width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mage.evaluation.generation_metrics import GENERATION_METRICS, Compared, GenerationMetric, distance
from mage.evaluation.metric import Metric, NotMeasured


@dataclass(frozen=True)
class SubsetDistances:
    """Mean and standard deviation over the subsets."""

    mean: float
    deviation: float


def kernel_distance(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "m d"],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> SubsetDistances:
    """Mean over random subsets, with the kernel (x y / d + 1)^3; the subsets of torch-fidelity for the same seed.

    Raises ValueError if a set has fewer images than a subset.
    """
    if min(len(first), len(second)) < subset_size:
        raise ValueError(f"subsets of {subset_size} images cannot be drawn from {len(first)} and {len(second)}")
    random = np.random.RandomState(seed)
    distances = []
    for _ in range(subsets):
        x, y = (
            features[torch.from_numpy(random.choice(len(features), subset_size, replace=False))].double()
            for features in (first, second)
        )
        distances.append(squared_mmd(x, y))
    return SubsetDistances(float(np.mean(distances)), float(np.std(distances)))


def squared_mmd(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> float:
    """Unbiased squared maximum mean discrepancy of two sets of equal size, with the cubic kernel."""
    n = len(x)

    def within(features: Tensor) -> Tensor:
        kernel = _kernel(features, features)
        return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))

    return float(within(x) + within(y) - 2 * _kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


@GENERATION_METRICS.register("kernel")
class KernelDistance(GenerationMetric):
    """Kernel distance; with the Inception network of the FID it is the KID (Binkowski et al. 2018)."""

    words: ClassVar = {"kd": distance("Kernel distance"), "kid": distance("KID")}

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """The mean over random subsets."""
        word, protocol = "kid" if compared.extractor == "inception" else "kd", compared.protocol
        if compared.reference.features is None:
            raise NotMeasured(f"{compared.name(word)}: the reference holds no features of single images")
        x, y = compared.samples.features, compared.reference.features
        size = min(protocol.subset_size, len(x), len(y))
        if size < 2:
            raise NotMeasured(f"{compared.name(word)}: subsets need at least two images")
        count = protocol.subsets if size < max(len(x), len(y)) else 1  # of two whole sets all are the same
        subsets = kernel_distance(x, y, subsets=count, subset_size=size, seed=protocol.seed)
        drawn = f"{count} subset{'s' if count > 1 else ''} of {size:,} of {len(x):,} and {len(y):,} images"
        differ = 2 * size <= min(len(x), len(y))  # else one of the sets hardly varies, and the deviation is too small
        drawn += f", +- {subsets.deviation:.3g}" if differ else ""
        yield self.named(compared, word, subsets.mean, drawn, count=len(x))
