"""Options of `mage plan`."""

from dataclasses import dataclass

from mage.cli.options.base import RecipeOptions


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """Print a recipe with its number of parameters, FLOPs per step and bytes of token cache."""

    images: int = 1_281_167
    """images in the training set; the default is ImageNet-1K"""
