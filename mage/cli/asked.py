"""From the options of a command to what the library takes."""

from dataclasses import fields
from typing import Any

from mage.cli.options.base import RecipeOptions, RunOptions, SamplerOptions
from mage.cli.say import check_parent
from mage.pipeline import Mage
from mage.recipes import Choice
from mage.runs import Launch
from mage.sampling.settings import SamplingConfig


def choice_of(options: RecipeOptions) -> Choice:
    """The recipe that is asked for, as `mage.recipes.resolve` takes it."""
    return Choice(options.recipe, options.config, options.set, options.data, options.seed)


def launch_of(options: RunOptions) -> Launch:
    """Everything about the run that does not change what is learned."""
    check_parent(options.out)
    return Launch(
        options.out,
        device=options.device,
        precision=options.precision,
        resume=getattr(options, "resume", False),
        workers=options.workers,
        progress=not options.json,
        data_root=options.data_root,
    )


def sampling_of(options: SamplerOptions) -> dict[str, Any]:
    """The sampler's settings that were given, as keywords of `generate`."""
    names = [field.name for field in fields(SamplingConfig)]
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def classes_of(options: SamplerOptions, model: Mage) -> tuple[int | str, ...]:
    """The classes asked for, one after the other. Raises ValueError for `all` of a model without classes."""
    if options.class_ != ("all",):
        return options.class_
    count = getattr(getattr(model.transformer, "config", None), "num_classes", 0)
    if not count:
        raise ValueError("--class all: this model was trained without classes")
    return tuple(range(count))
