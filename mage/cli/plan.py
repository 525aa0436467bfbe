"""`mage plan`: cost of a recipe before it runs: a summary as comments, then the recipe, as one YAML file."""

from dataclasses import replace
from typing import Any

from mage import device as devices
from mage.cli.arguments import choice_of
from mage.cli.console import emit, note
from mage.cli.options.plan import DEVICES, Options
from mage.recipes import Recipe, resolve
from mage.recipes.schema import to_yaml
from mage.runs.budget import budget, count_images
from mage.runs.hardware import DEVICES_PER_NODE
from mage.runs.pace import Pace, pretraining_pace, tokenizer_pace
from mage.runs.scaling import Cost, hardware_named, training_cost
from mage.training.optim import OptimConfig
from mage.training.progress import duration

TITLES = {"tokenizer": "train-tokenizer", "pretraining": "pretrain"}
PARTS = ("tokenizer", "transformer", "encoder")
ELSEWHERE = tuple(name for name in DEVICES if name != "cpu")
"""Names that --device takes for a plan, and that are no devices of this machine."""


def run(options: Options) -> None:
    """Count images, parameters and steps, measure a few steps, and print."""
    recipe = resolve(choice_of(options))
    extent = count_images(recipe, options.data_root, options.images)
    cost = budget(recipe, extent.train)
    lines, values = (
        [extent.sentence(recipe)],
        {**cost, "train_images": extent.train, "held_out_images": extent.held_out},
    )
    on_paper = options.device in ELSEWHERE or options.devices is not None
    if not on_paper and (options.share is not None or options.strategy != "ddp"):
        raise ValueError("--share and --strategy are of a plan for published devices: name one, such as --device h100")
    paces = {} if options.no_measure or on_paper else _measure(options, recipe)
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
    if on_paper:
        cost_values, cost_lines = _on_paper(options, recipe, extent.train)
        values |= cost_values
        lines += cost_lines
    emit(options, values, "\n".join([*(f"# {line}" for line in lines), to_yaml(recipe)]))


def _on_paper(options: Options, recipe: Recipe, num_images: int) -> tuple[dict[str, Any], list[str]]:
    """Cost of the pre-training on the devices that were asked for, as values and as lines."""
    device = hardware_named(options.device)
    cost = _cost(options, recipe, num_images)
    parts = ("weight", "gradient", "optimizer", "average", "activation")
    memory = ", ".join(f"{part} {getattr(cost, f'{part}_bytes') / 1e9:.3g}" for part in parts)
    reached = f"{cost.share:.3g} of the peak of {device.tflops(options.precision):,.4g} TFLOP/s"
    lines = [
        f"pre-training on {cost.devices:,} x {device.name} ({options.strategy}), computed, not measured; "
        f"{cost.images:,} images a device: {cost.memory_bytes / 1e9:.3g} of {device.memory_gb:.4g} GB ({memory})",
        f"network: a device sends {cost.network_bytes / 1e9:.3g} GB a step, {_seconds(cost.network_seconds)} at "
        f"{device.bandwidth(cost.devices):.4g} GB/s, most of it while it computes",
        f"time: {_seconds(cost.step_seconds)} a step at {reached}, {cost.steps:,} steps in {duration(cost.seconds)}, "
        f"{cost.device_days:,.3g} device-days; peaks: {device.source}",
    ]
    if cost.memory_bytes > 1e9 * device.memory_gb:
        lines.append(f"WARNING: this does not fit: {_what_fits(options, recipe, num_images)}")
    if cost.devices > DEVICES_PER_NODE:
        lines.append(f"on {-(-cost.devices // DEVICES_PER_NODE):,} machines of {DEVICES_PER_NODE}: docs/cluster.md")
    return {"device": device.name, "strategy": options.strategy, **cost.as_dict()}, lines


def _cost(options: Options, recipe: Recipe, num_images: int) -> Cost:
    return training_cost(
        recipe,
        num_images,
        options.device,
        devices=options.devices or 1,
        strategy=options.strategy,
        precision=options.precision,
        share=options.share,
    )


def _what_fits(options: Options, recipe: Recipe, num_images: int) -> str:
    """The smallest accumulation with which a pass fits into the memory, else what is left to try."""
    most, optim = 1e9 * hardware_named(options.device).memory_gb, recipe.pretraining
    shared = optim.batch_size // (options.devices or 1)
    for parts in range(optim.accumulation + 1, shared + 1):
        if shared % parts == 0:
            smaller = replace(recipe, pretraining=replace(optim, accumulation=parts))
            if _cost(options, smaller, num_images).memory_bytes <= most:
                return f"--set pretraining.accumulation={parts}"
    return "--strategy fsdp on several devices" if options.strategy == "ddp" else "more devices"


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
