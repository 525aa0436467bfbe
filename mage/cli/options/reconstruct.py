"""Options of `mage reconstruct`."""

from dataclasses import dataclass
from pathlib import Path

from mage.cli.options.base import Common
from mage.cli.options.bounds import Seed, Steps
from mage.cli.options.choices import RATIOS
from mage.cli.options.places import Model, NewPicture


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Mask a share of each image's tokens and predict them; one row per share."""

    model: Model
    """model or run folder"""
    image: tuple[Path, ...]
    """image files"""
    out: NewPicture
    """PNG file for the figure"""
    mask_ratio: tuple[float, ...] = RATIOS
    """shares of masked tokens, one row each"""
    steps: Steps = 1
    """1 predicts all tokens in one pass with the most probable codes; more decodes iteratively"""
    seed: Seed = 0
    """seed of the masks"""
