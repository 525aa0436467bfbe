"""The recipe of a run with --minutes: measured on this machine when the run starts, read from it when it goes on."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mage import distributed
from mage.data.token_cache import TokenCache
from mage.nn.grids import area, written
from mage.pipeline import Mage
from mage.recipes.fitting import ENOUGH_STEPS, Fit, Training, fit_batch, fit_sizes, fit_steps, smaller
from mage.recipes.resolve import from_yaml
from mage.recipes.schema import Recipe
from mage.runs.launch import Launch
from mage.runs.pace import pretraining_pace, tokenizer_pace
from mage.runs.reading import Reading
from mage.settings import name_of, override
from mage.training.progress import duration

logger = logging.getLogger(__name__)
RECORDED: dict[Training, tuple[str, ...]] = {
    "tokenizer_training": ("tokenizer", "tokenizer_training", "run"),
    "pretraining": ("model", "pretraining", "run"),
}
"""What a training with --minutes sets, and takes from recipe.yaml when it is resumed."""


def fitted_recipe(
    recipe: Recipe,
    launch: Launch,
    training: Training,
    num_images: int,
    minutes: float,
    *,
    share: float = 1.0,
    continued: bool = False,
    keep_sizes: bool = False,
    shrink: bool = False,
    reading: Reading | None = None,
    changes: Sequence[str] = (),
) -> Recipe:
    """The recipe with codes, sizes, batch and steps for these images and minutes.

    share: of the minutes that is for this training. continued: from the weights of a trained model, which keeps its
    sizes and needs fewer passes. keep_sizes: of the network and of the codes, although passes are as for a new one.
    A few steps are timed first; of several processes the first one times its part of the batch. A resumed run keeps
    what its recipe.yaml says. shrink: where the time is for few steps, take smaller networks and batches. reading: what
    the steps read. changes: the user's own settings; those of `run` hold, also in a resumed run. Raises ValueError if
    the time is too short, there is no network to time, or the changes set the steps.
    """
    check_changes(changes, training)
    of_run = [change for change in changes if name_of(change).startswith("run.")]
    if launch.resume:
        recorded = from_yaml(launch.out / "recipe.yaml")
        return override(replace(recipe, **{name: getattr(recorded, name) for name in RECORDED[training]}), of_run)
    if recipe.tokenizer is None and (training == "tokenizer_training" or recipe.method.reads == "tokens"):
        raise ValueError(
            f"--minutes needs a recipe with a tokenizer, which {recipe.name} has not: give the steps instead"
        )
    if continued or keep_sizes:
        batch: dict[str, Any] = {training: fit_batch(getattr(recipe, training), num_images)}
        sized = replace(recipe, **batch)
    else:
        sized = fit_sizes(recipe, training, num_images)
    processes = distributed.world_size()

    def timed(candidate: Recipe) -> Fit:
        seconds = _seconds_per_step(candidate, launch, training, processes, reading)
        less = smaller(candidate, training) if shrink else None
        try:
            fit = fit_steps(
                candidate, training, num_images, seconds_per_step=seconds, minutes=minutes, share=share,
                continued=continued,
            )  # fmt: skip
        except ValueError:
            if less is None:
                raise
            return timed(less)
        few = training == "pretraining" and fit.bound == "minutes" and fit.steps < ENOUGH_STEPS
        return timed(less) if few and less is not None else fit

    fit = distributed.by_first_process(lambda: timed(sized))
    if distributed.is_first():
        logger.info("%s", sentence(fit, training, num_images, minutes))
    return override(fit.recipe, of_run)


def check_changes(changes: Sequence[str], *trainings: Training) -> None:
    """Raise ValueError if the user's own settings are of the steps of a training that keeps to minutes."""
    lengths = [f"{training}.{length}" for training in trainings for length in ("steps", "epochs")]
    for change in changes:
        if name_of(change) in lengths:
            raise ValueError(f"the steps follow from the minutes: --set {change} cannot be given with them")


def check_words(recipe: Recipe, tokenizer: Mage | None, cache: TokenCache | None) -> None:
    """Raise ValueError if the tokens have another grid or number of codes than those of the recipe, which are timed."""
    if recipe.method.reads != "tokens" or recipe.tokenizer is None:
        return
    theirs = None if tokenizer is None else tokenizer.require_tokenizer()
    source = cache if theirs is None else theirs
    mine = (tuple(recipe.tokenizer.grid), recipe.tokenizer.quantizer.num_codes)
    if source is not None and (tuple(source.grid), source.num_codes) != mine:
        raise ValueError(
            f"--minutes times the tokenizer of recipe {recipe.name}, {written(mine[0])} tokens of {mine[1]:,} codes, "
            f"but these tokens are {written(source.grid)} of {source.num_codes:,}: give the steps instead"
        )


def _seconds_per_step(
    recipe: Recipe, launch: Launch, training: Training, processes: int, reading: Reading | None
) -> float:
    logger.info("timing a few steps ...")
    optim = getattr(recipe, training)
    mine = max(1, optim.batch_size // processes)
    pieces = math.gcd(mine, optim.accumulation)
    part = replace(recipe, **{training: replace(optim, batch_size=mine, accumulation=pieces)})
    measure = tokenizer_pace if training == "tokenizer_training" else pretraining_pace
    seconds = measure(part, launch.start(), launch.resolved_precision()).seconds
    return seconds if reading is None else reading.added_to(seconds, mine)


def sentence(fit: Fit, training: Training, num_images: int, minutes: float) -> str:
    """What was chosen, and why."""
    recipe = fit.recipe
    optim = getattr(recipe, training)
    passes = fit.steps * optim.batch_size / num_images
    parts = []
    if recipe.tokenizer is not None:
        grid, codes = recipe.tokenizer.grid, recipe.tokenizer.quantizer.num_codes
        parts.append(f"{written(grid)} tokens of {codes:,} codes, {num_images * area(grid):,} tokens in one pass")
    if training == "pretraining":
        parts.append(f"{recipe.model.depth} blocks")
    parts.append(f"{fit.steps:,} steps of {optim.batch_size:,} images, {passes:,.3g} passes over the data")
    parts.append(f"about {duration(fit.seconds)}")
    why = "" if fit.bound == "minutes" else f" (more of the {minutes:g} minutes would only repeat these images)"
    return f"fitted to {num_images:,} images: {'; '.join(parts)}{why}"
