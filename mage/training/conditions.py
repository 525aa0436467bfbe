"""What a training says about classes: where they come from, how often they are hidden, what stays as it is."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mage import rng
from mage.sampling.classes import NO_CLASS


@dataclass(frozen=True)
class ConditionConfig:
    """Class conditions (paper, section 4.2; METHOD section 10); model.class_input says where they enter."""

    source: Literal["none", "labels", "clusters"] = "none"
    """labels: of the data set. clusters: k-means over the features of --init-from, so that nothing needs a label."""
    clusters: int = 64
    """Number of clusters."""
    drop: float = 0.1
    """Share of the images whose class is hidden in training: what guidance needs."""
    freeze_encoder: bool = False
    """Train the decoder and the head only; with --init-from, features stay what they were."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop <= 1:
            raise ValueError(f"conditions.drop must lie in [0, 1], not {self.drop}")
        if self.clusters < 2:
            raise ValueError(f"conditions.clusters must be at least 2, not {self.clusters}")


def hide_some(labels: Int[Tensor, " n"], drop: float, seed: int, number: int, rank: int) -> Int[Tensor, " n"]:
    """Replace a share of the labels by "no class"; batch `number` of a process always hides the same ones."""
    uniform = torch.rand(len(labels), generator=rng.generator(seed, "class drop", number, rank))
    return labels.masked_fill((uniform < drop).to(labels.device), NO_CLASS)
