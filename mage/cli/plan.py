"""`mage plan`: what a recipe will cost, before it runs."""

from mage.cli.asked import choice_of
from mage.cli.options.plan import Options
from mage.cli.say import emit
from mage.recipes import resolve
from mage.recipes.schema import to_yaml
from mage.runs.budget import budget


def run(options: Options) -> None:
    """Build the networks without memory and count."""
    if options.images < 1:
        raise ValueError(f"--images must be positive, not {options.images}")
    recipe = resolve(choice_of(options), default="imagenet-base")
    cost = budget(recipe, options.images)
    lines = [to_yaml(recipe), f"budget on {options.images:,} images:"]
    lines += [f"  {name.replace('_', ' ')}: {value:,.4g}" for name, value in cost.items()]
    emit(options, dict(cost), "\n".join(lines))
