"""Options of `mage plan`."""

from dataclasses import dataclass

from mage.cli.options.base import RecipeOptions
from mage.cli.options.bounds import Count


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """Print a recipe as YAML below its images, steps, time, parameters, FLOPs and bytes of token cache."""

    images: Count | None = None
    """images in the training set, including held-out ones; default: those of --data, else of the recipe's data"""
    no_measure: bool = False
    """leave out the training time on this machine, which is measured with a few steps"""
