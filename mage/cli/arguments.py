"""Conversion of a command's options to the library's arguments."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from mage.cli.options import adapt, evaluate_representations
from mage.cli.options.base import Common, RecipeOptions, RunOptions, SamplerOptions
from mage.device import PRECISIONS
from mage.pipeline import Mage
from mage.recipes import Choice
from mage.runs import Launch
from mage.sampling.settings import SamplingConfig


def choice_of(options: RecipeOptions) -> Choice:
    """The user's choice of a recipe, for `mage.recipes.resolve`."""
    return Choice(options.recipe, options.config, options.set, options.data, options.seed)


def launch_of(options: RunOptions | adapt.Options | evaluate_representations.Options) -> Launch:
    """The launch: settings of a run that do not change what is learned."""
    assert options.out is not None
    return Launch(
        options.out,
        device=options.device,
        precision=options.precision,
        resume=getattr(options, "resume", False),
        workers=options.workers,
        progress=not options.json,
        data_root=options.data_root,
        deterministic=getattr(options, "deterministic", False),
    )


def precision_of(options: Common, recorded: str | None) -> str:
    """--precision; "auto" goes on with that of the results that are there, if it is recorded."""
    return recorded if options.precision == "auto" and recorded in PRECISIONS else options.precision


def sizes_of(config: Path | None) -> dict[str, Any] | None:
    """The sizes in the JSON file of --config, which may be its entry "config"; None without a file.

    Raises ValueError for a file that is not a JSON object.
    """
    if config is None:
        return None
    try:
        values = json.loads(config.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"--config {config} is not readable as JSON ({type(error).__name__})") from None
    values = values.get("config", values) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise ValueError(f'--config {config} must hold names and numbers, {{"num_heads": 12}}, not {values!r:.40}')
    return values


def sampling_of(options: SamplerOptions) -> dict[str, Any]:
    """The given settings of the sampler, as keywords of `generate`."""
    names = [field.name for field in fields(SamplingConfig)]
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def classes_of(options: SamplerOptions, model: Mage) -> tuple[int | str, ...]:
    """The given classes. Raises ValueError for `all` and a model without classes."""
    if options.class_ != ("all",):
        return options.class_
    count = getattr(getattr(model.transformer, "config", None), "num_classes", 0)
    if not count:
        raise ValueError("--class all needs a model with classes; this one was trained without: leave --class out")
    return tuple(range(count))
