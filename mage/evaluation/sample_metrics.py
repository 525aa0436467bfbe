"""What a metric of samples in pixels is given, and the registry of these metrics.

They answer what a newcomer asks first: can one see what it is, and is it new? Unlike the metrics of generation they
need no feature network, but the training images themselves. A new one is a subclass of SampleMetric registered in
SAMPLE_METRICS; reports of runs measure and describe it with the others.

Letters: n, m images, c channels, h w pixels.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mage.evaluation.metric import Evaluator
from mage.registry import Registry


@dataclass(frozen=True)
class SamplesAndData:
    """Generated images, and the data that they should resemble without repeating it."""

    samples: Float[Tensor, "n c h w"]
    """In [0, 1]."""
    train: UInt8[Tensor, "m c h w"]
    test: UInt8[Tensor, "k c h w"]
    labels: Int[Tensor, " m"] | None = None
    """Of the training images."""
    mirrored: bool = False
    """Whether a mirrored image shows the same."""
    cache: Path | None = None
    """Folder for what is expensive to make from the training images."""
    precision: str = "float32"
    device: torch.device | str = "cpu"


class SampleMetric(Evaluator[SamplesAndData]):
    """One metric."""


SAMPLE_METRICS: Registry[type[SampleMetric]] = Registry(kind="metric", group="mage.sample_metrics")
