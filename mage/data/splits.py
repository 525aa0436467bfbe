"""Validation images, carved from the training images: what training is watched by and choices are made by.

Test images are for the final evaluation of a finished model; what is chosen by looking at them is measured too well.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from mage import rng
from mage.data.datasets import ImageDataset, subset


@dataclass(frozen=True)
class ValidationConfig:
    """Which training images are held out."""

    share: float = 0.05
    """Share of the training images that training does not see."""
    seed: int = 0
    """Which images these are: a random choice that does not depend on the seed of training."""
    images: int = 1000
    """Held-out images, at most, that training watches itself on."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.images < 1:
            raise ValueError(
                f"validation: share must lie between 0 and 1 and images be at least 1, not {self.share} and "
                f"{self.images}"
            )


class TrainingData(NamedTuple):
    """A data set's training images in two parts."""

    train: ImageDataset
    validation: ImageDataset


def held_out(count: int, config: ValidationConfig) -> int:
    """How many of `count` images are held out; none of a single one."""
    return max(1, round(config.share * count)) if count > 1 else 0


def carve(dataset: ImageDataset, config: ValidationConfig) -> TrainingData:
    """Hold out a share of the images, at least one; a single image is in both parts."""
    count = len(dataset)
    if count < 2:
        return TrainingData(dataset, dataset)
    order = torch.randperm(count, generator=rng.generator(config.seed, "validation split")).tolist()
    held = held_out(count, config)
    return TrainingData(subset(dataset, sorted(order[held:])), subset(dataset, order[:held]))
