"""Seconds per training step of a recipe on this machine, from a few real steps on black images.

A step that would take minutes is measured with fewer images and extrapolated. The time for reading and augmenting
images, validation and checkpoints is not included.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mage import settings
from mage.data.batches import Batch, Batches
from mage.models import MAGETransformer
from mage.recipes.schema import Recipe
from mage.share import Share
from mage.tokenizers import VQGAN
from mage.training.engine import Trainer
from mage.training.method import MethodInputs
from mage.training.optim import OptimConfig
from mage.training.redraw import Redraw
from mage.training.run import RunConfig
from mage.training.task import Task
from mage.training.tokenizer import TokenizerTraining, perceptual_of
from mage.vocabulary import Vocabulary

FEWEST, FEW = 2, 16
"""Images of the first measured step; and images from which on the fixed cost of a step hardly matters."""
ENOUGH_SECONDS = 0.5
"""A step of at least FEW images that takes this long can be extrapolated to larger batches."""
LONG_SECONDS = 2.0
"""After a step this long, one of twice as many images is measured, and no larger one."""
PATIENCE = 20.0
"""After a step this long, none is: the time is taken to be in proportion to the images."""
STEPS = 10**6
"""Length of the schedule; the measured steps are late in it, when a discriminator is used."""


@dataclass(frozen=True)
class Pace:
    """Seconds of one training step."""

    seconds: float
    measured_images: int
    """Images of the measured step; the seconds are scaled to the recipe's batch."""


def tokenizer_pace(recipe: Recipe, device: torch.device, precision: str) -> Pace:
    """Seconds of a step of the recipe's tokenizer training. Raises ValueError if its losses need a missing package."""
    config, loss = recipe.tokenizer, recipe.tokenizer_loss
    if config is None:
        raise ValueError(f"the recipe {recipe.name} has no tokenizer")
    perceptual = perceptual_of(loss, recipe.channels)

    redraw = None
    if loss.redrawn:
        words = Vocabulary.fresh(config.quantizer.num_codes, 0)
        with torch.random.fork_rng(devices=[]):
            network = MAGETransformer(replace(recipe.model, num_classes=0), words, config.grid)
        redraw = Redraw(network, recipe.sampling, largest=loss.redrawn, seed=recipe.seed)

    def build(source: Batches, optim: OptimConfig) -> Task:
        return TokenizerTraining(
            VQGAN(config),
            source,
            num_images=1,
            optim=optim,
            loss=loss,
            recipe={},
            validation=torch.zeros(1, recipe.channels, *recipe.image_size, dtype=torch.uint8),
            perceptual=perceptual,
            precision=precision,
            redraw=redraw,
        )

    image = torch.zeros(1, recipe.channels, *recipe.image_size, dtype=torch.uint8)
    return _pace(build, {"images": image}, recipe.tokenizer_training, device, precision)


def pretraining_pace(recipe: Recipe, device: torch.device, precision: str) -> Pace:
    """Seconds of a step of the recipe's pre-training; on cached tokens if the method reads tokens."""
    method, row = recipe.method, {}
    with torch.random.fork_rng(devices=[]):
        words = None if recipe.tokenizer is None else VQGAN(recipe.tokenizer).eval().requires_grad_(False)
    if method.reads == "tokens" and words is not None:
        row["tokens"] = torch.zeros(1, *words.grid, dtype=torch.int64)
    else:
        row["images"] = torch.zeros(1, recipe.channels, *recipe.image_size, dtype=torch.uint8)
    if method.pairs:
        row["second"] = next(iter(row.values()))
    conditions = method.class_conditions
    classes = {"none": 0, "labels": 10, "clusters": conditions.clusters}[conditions.source]
    if classes:
        row["labels"] = torch.zeros(1, dtype=torch.int64)

    def build(source: Batches, optim: OptimConfig) -> Task:
        inputs = MethodInputs(
            model=recipe.model,
            source=source,
            num_images=1,
            optim=optim,
            recipe=settings.to_dict(recipe),
            seed=recipe.seed,
            validation=row.get("tokens", row.get("images")),
            grid=() if words is None else tuple(words.grid),
            num_codes=0 if words is None else words.num_codes,
            tokenizer=words,
            image_size=recipe.image_size,
            channels=recipe.channels,
            class_names=tuple(map(str, range(classes))),
            precision=precision,
        )
        return method.build(inputs)

    return _pace(build, row, recipe.pretraining, device, precision)


def _pace(
    build: Callable[[Batches, OptimConfig], Task],
    row: dict[str, Tensor],
    optim: OptimConfig,
    device: torch.device,
    precision: str,
) -> Pace:
    """Measure steps with more and more images, until one is long enough or has all that are computed at a time.

    Images for which the device has no memory are left out, if fewer were measured.
    """
    most = optim.batch_size // optim.accumulation
    count, measured = min(FEWEST, most), list[tuple[int, float]]()
    while True:
        try:
            with torch.random.fork_rng(devices=[]):
                task = build(_endless(row), replace(optim, batch_size=count, accumulation=1, steps=STEPS))
                seconds = _step_seconds(task, device, precision)
        except torch.OutOfMemoryError:
            if not measured:
                raise
            count, _ = measured[-1]
            return Pace(_extrapolated(measured, optim.batch_size), count)
        measured.append((count, seconds))
        enough = seconds >= (ENOUGH_SECONDS if count >= FEW else LONG_SECONDS)
        if count == most or (enough and (len(measured) > 1 or seconds > PATIENCE)):
            return Pace(_extrapolated(measured, optim.batch_size), count)
        count = min(most, count * (2 if enough else 4))


def _extrapolated(measured: list[tuple[int, float]], batch_size: int) -> float:
    """Seconds of a step of `batch_size` images: on the line through the last two measurements.

    A step has a cost of its own, such as the optimizer's, which may be most of it for a few images.
    """
    images, seconds = measured[-1]
    each = seconds / images
    if len(measured) > 1:
        fewer, shorter = measured[-2]
        each = min(each, max(0.0, (seconds - shorter) / (images - fewer)))
    return seconds + each * (batch_size - images)


def _step_seconds(task: Task, device: torch.device, precision: str) -> float:
    """Seconds of the fastest of a few steps, at least two: the first one is for warm-up and does not count."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(task, Path(folder), 0, {}, precision=precision, device=device)
        trainer.step = STEPS * 3 // 4
        with trainer.logging(RunConfig(log_every=STEPS), progress=False):
            times = []
            for _ in range(4):
                start = time.perf_counter()
                trainer.train_step()
                trainer.window.read()  # waits for the device
                times.append(time.perf_counter() - start)
                if len(times) > 1 and sum(times) > LONG_SECONDS:
                    break
    return min(times[1:])


def _endless(row: dict[str, Tensor]) -> Batches:
    """Endless batches of one repeated row, in pieces of the share's length."""

    def batches(start: int, share: Share) -> Iterator[Batch]:
        batch = {name: value.expand(share.piece, *value.shape[1:]).contiguous() for name, value in row.items()}
        while True:
            yield batch

    return batches
