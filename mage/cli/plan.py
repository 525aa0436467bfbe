"""`mage plan`: what a recipe will cost, before it runs."""

from dataclasses import dataclass

from mage.cli.options import RecipeOptions, emit
from mage.recipes import resolve
from mage.recipes.schema import to_yaml
from mage.runs.budget import budget


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """Print a recipe with its number of parameters, FLOPs per step and bytes of token cache."""

    images: int = 1_281_167
    """images in the training set; the default is ImageNet-1K"""


def run(options: Options) -> None:
    """Build the networks without memory and count."""
    if options.images < 1:
        raise ValueError(f"--images must be positive, not {options.images}")
    recipe = resolve(options.choice(), default="imagenet-base")
    cost = budget(recipe, options.images)
    lines = [to_yaml(recipe), f"budget on {options.images:,} images:"]
    lines += [f"  {name.replace('_', ' ')}: {value:,.4g}" for name, value in cost.items()]
    emit(options, dict(cost), "\n".join(lines))
