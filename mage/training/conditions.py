"""Class conditions of a training: their source, how often they are hidden, and whether the encoder is frozen."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mage import rng
from mage.device import move_together
from mage.sampling.classes import NO_CLASS
from mage.share import Turn


@dataclass(frozen=True)
class ConditionConfig:
    """Classes that a network is conditioned on (docs/method.md, Class conditions); they enter at model.class_input."""

    source: Literal["none", "labels", "clusters"] = "none"
    """labels: of the data set. clusters: k-means, without labels, over the features of --init-from, or else over the
    pixels that the tokenizer restores."""
    clusters: int = 64
    """Number of clusters."""
    drop: float = 0.1
    """Share of the images whose class is hidden in training, as guidance needs it."""
    freeze_encoder: bool = False
    """Train the decoder and the head only; with --init-from, features do not change."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop <= 1:
            raise ValueError(f"conditions.drop must lie in [0, 1], not {self.drop}")
        if self.clusters < 2:
            raise ValueError(f"conditions.clusters must be at least 2, not {self.clusters}")


def drop_classes(labels: Int[Tensor, " n"], drop: float, seed: int, turn: Turn) -> Int[Tensor, " n"]:
    """Replace a share of the labels by "no class"; row r of step s always keeps or loses its own."""
    uniform = torch.rand(turn.share.batch_size, generator=rng.generator(seed, "class drop", turn.step))
    hidden = turn.take(uniform) < drop
    return labels.masked_fill(move_together([hidden], labels.device)[0], NO_CLASS)
