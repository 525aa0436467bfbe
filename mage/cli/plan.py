"""`mage plan`: cost of a recipe before it runs: a summary as comments, then the recipe, as one YAML file."""

from typing import Any

from mage import device as devices
from mage.cli.arguments import choice_of
from mage.cli.console import emit, note
from mage.cli.options.plan import Options
from mage.recipes import Recipe, resolve
from mage.recipes.schema import to_yaml
from mage.runs.budget import budget, count_images
from mage.runs.pace import Pace, pretraining_pace, tokenizer_pace
from mage.training.optim import OptimConfig
from mage.training.progress import duration

TITLES = {"tokenizer": "train-tokenizer", "pretraining": "pretrain"}
PARTS = ("tokenizer", "transformer", "encoder")


def run(options: Options) -> None:
    """Count images, parameters and steps, measure a few steps, and print."""
    recipe = resolve(choice_of(options))
    extent = count_images(recipe, options.data_root, options.images)
    cost = budget(recipe, extent.train)
    lines, values = (
        [extent.sentence(recipe)],
        {**cost, "train_images": extent.train, "held_out_images": extent.held_out},
    )
    paces = {} if options.no_measure else _measure(options, recipe)
    for name, optim in _trainings(recipe).items():
        steps, pace = optim.num_steps(extent.train), paces.get(name)
        values[f"{name}_steps"] = steps
        passes = steps * optim.batch_size / extent.train
        line = f"{TITLES[name]}: {steps:,} steps of {optim.batch_size:,} images, {_passes(passes)} over the data"
        if isinstance(pace, Pace):
            values[f"{name}_seconds"] = steps * pace.seconds
            line += f"; {_seconds(pace.seconds)} a step on this machine, about {duration(steps * pace.seconds)}"
            if pace.measured_images < optim.batch_size:
                line += f" (measured on {pace.measured_images} images)"
        elif pace is not None:
            line += f"; time not measured: {pace}"
        lines.append(line)
        if optim.batch_size > extent.train:
            setting = {"tokenizer": "tokenizer_training"}.get(name, name)
            lines.append(
                f"WARNING: a batch of {optim.batch_size:,} does not fit {extent.train:,} images: "
                f"--set {setting}.batch_size={extent.train}, or a smaller number"
            )
    if paces:
        lines.append("these times are without reading and augmenting images, validation and checkpoints")
    if recipe.tokenizer is not None:
        lines.append(
            "parameters: " + ", ".join(f"{name} {cost[f'{name}_parameters'] / 1e6:,.4g} million" for name in PARTS)
        )
        lines.append(
            f"pre-training: {cost['flops_per_image']:.3g} FLOPs an image, {cost['flops_per_step']:.3g} a step, "
            f"{cost['flops_in_all']:.3g} in all; token cache: {cost['token_cache_bytes'] / 1e6:,.4g} MB"
        )
    emit(options, values, "\n".join([*(f"# {line}" for line in lines), to_yaml(recipe)]))


def _trainings(recipe: Recipe) -> dict[str, OptimConfig]:
    tokenizer = {} if recipe.tokenizer is None else {"tokenizer": recipe.tokenizer_training}
    return tokenizer | {"pretraining": recipe.pretraining}


def _measure(options: Options, recipe: Recipe) -> dict[str, Pace | str]:
    """Seconds of a step of each training, or the reason why they could not be measured."""
    note(options, "timing a few steps (--no-measure leaves this out) ...")
    device = devices.start(options.device)
    precision = devices.resolve(options.precision, device)
    measured: dict[str, Any] = {}
    for name, measure in (("tokenizer", tokenizer_pace), ("pretraining", pretraining_pace)):
        if name in _trainings(recipe):
            try:
                measured[name] = measure(recipe, device, precision)
            except ValueError as error:  # a missing package or weight file, which training needs, too
                measured[name] = " ".join(str(error).split())
    return measured


def _passes(passes: float) -> str:
    return f"{passes:,.0f} passes" if passes >= 10 else f"{passes:.2g} passes"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)
