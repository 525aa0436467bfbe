"""Options of `mage evaluate representations`."""

from dataclasses import dataclass
from typing import Literal

from mage.cli.options.base import Common
from mage.cli.options.bounds import BatchSize, Count, Seed, Workers
from mage.cli.options.choices import PROTOCOLS, FeaturePool
from mage.cli.options.places import Images, Model, NewFolder


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Run all protocols on a representation: OUT/representations.json, for `mage report` and `mage compare`."""

    model: Model
    """model or run folder"""
    data: Images
    """data set by name, or a folder with one folder per class"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    out: NewFolder | None = None
    """folder for the numbers, such as the run itself"""
    parts: tuple[str, ...] = PROTOCOLS
    """protocols to run, these or those of other packages"""
    pool: FeaturePool = "mean"
    """features: mean over the tokens, the class token, both concatenated, or both of each of the last four blocks"""
    cut: Literal["whole", "paper"] = "whole"
    """what is cut from an image. whole: all that a centre crop shows; paper: the centre after scaling to 292/256 of the
    model's size, as published"""
    corruption_images: Count = 1000
    """largest number of test images that are corrupted in every way"""
    attack_images: Count = 500
    """largest number of test images that are attacked"""
    finetune: str = ""
    """also fine-tune, by this recipe: small, base or large"""
    finetune_set: tuple[str, ...] = ()
    """settings of fine-tuning to override, such as optim.epochs=5"""
    seed: Seed = 0
    """seed of everything random"""
    batch_size: BatchSize = 256
    """images at a time"""
    workers: Workers = 0
    """processes that read and augment images in fine-tuning; 0: the main one"""
