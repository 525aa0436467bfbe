"""Splits validation images from the training images, for watching training and for choosing settings.

Test images are for the final evaluation only: results on images that choices were made on are too good.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from mage import rng
from mage.data.image_sets import ImageDataset, Subset


@dataclass(frozen=True)
class ValidationConfig:
    """Which training images are held out."""

    share: float = 0.05
    """Share of the training images that is held out."""
    seed: int = 0
    """Seed of the random choice of held-out images, independent of the seed of training."""
    images: int = 1000
    """Largest number of held-out images used to watch training."""

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
    """Number of `count` images that are held out; 0 of a single image."""
    return max(1, round(config.share * count)) if count > 1 else 0


def carve(dataset: ImageDataset, config: ValidationConfig) -> TrainingData:
    """Hold out a share of the images, at least one; a single image is in both parts."""
    count = len(dataset)
    if count < 2:
        return TrainingData(dataset, dataset)
    order = torch.randperm(count, generator=rng.generator(config.seed, "validation split")).tolist()
    held = held_out(count, config)
    return TrainingData(Subset(dataset, sorted(order[held:])), Subset(dataset, order[:held]))
