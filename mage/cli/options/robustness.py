"""Options of `mage robustness`."""

from dataclasses import dataclass
from pathlib import Path

from mage.cli.options.base import Common
from mage.cli.options.bounds import BatchSize, Count, Seed
from mage.cli.options.choices import FeaturePool
from mage.cli.options.places import Images, Model, NewJson


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Measure accuracy on corrupted and attacked test images, of a fine-tuned model or a probe on features."""

    model: Model
    """model or run folder"""
    data: Images
    """data set by name, or a folder with one folder per class"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    official: Path | None = None
    """folder of official corrupted images, in the layout of ImageNet-C or CIFAR-10-C, instead of generated ones"""
    baseline: str | None = None
    """for the mean corruption error: alexnet (only with --official), or this command's JSON for another model"""
    attacks: bool = True
    """leave out the attacks, FGSM and PGD"""
    corruption_images: Count = 1000
    """test images, at most, that are corrupted in every way"""
    attack_images: Count = 500
    """test images, at most, that are attacked"""
    pool: FeaturePool = "mean"
    """features of the linear probe: as of `mage probe`"""
    out: NewJson | None = None
    """file for the numbers as JSON"""
    seed: Seed = 0
    """seed of everything random"""
    batch_size: BatchSize = 256
    """images at a time"""
