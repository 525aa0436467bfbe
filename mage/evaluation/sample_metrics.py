"""Input of the metrics of samples in pixels, and the registry of these metrics.

Unlike the metrics of generation they use the training images themselves and no pre-trained feature network. A new
metric is a subclass of SampleMetric registered in SAMPLE_METRICS; reports of runs contain it with the others.

Letters: n samples, m training images, k test images, c channels, h w pixels.
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
    """Generated images, and the training and test images that they are compared with."""

    samples: Float[Tensor, "n c h w"]
    """Generated images in [0, 1]."""
    train: UInt8[Tensor, "m c h w"]
    test: UInt8[Tensor, "k c h w"]
    labels: Int[Tensor, " m"] | None = None
    """Labels of the training images."""
    mirrored: bool = False
    """Whether mirrored images belong to the data, so that a judge is trained on them too."""
    restored: Float[Tensor, "r c h w"] | None = None
    """Test images after the tokenizer, in [0, 1]: what a model of its tokens would draw that copies nothing."""
    cache: Path | None = None
    """Folder for networks that are trained on the training images; None: not stored."""
    precision: str = "float32"
    device: torch.device | str = "cpu"


class SampleMetric(Evaluator[SamplesAndData]):
    """A metric of samples in pixels."""


SAMPLE_METRICS: Registry[type[SampleMetric]] = Registry(kind="metric", group="mage.sample_metrics")
