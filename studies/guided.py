"""Guidance of a model with classes: chosen by validation images, and measured by a judge."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import mage
from mage import images
from mage.data.datasets import ImageDataset
from mage.evaluation.extractors import Extractor
from mage.evaluation.generation import compare
from mage.evaluation.judge import JudgeConfig, judge_of
from mage.evaluation.seen import Reference, look_at
from mage.runs.generation import look_at_dataset, look_at_model
from mage.runs.production import Production
from mage.store import folder as store

GUIDANCES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
BATCH = 250


def every_class(model: mage.Mage) -> tuple[int, ...]:
    """Numbers of the model's classes; empty if it has none that a user may ask for."""
    return () if model.notes.get("class_shares") else tuple(range(model.require_generator().config.num_classes))


def choose_guidance(
    folder: Path, model: mage.Mage, validation: ImageDataset, extractor: Extractor, *, num: int
) -> dict[str, float]:
    """Store the guidance with the least Frechet distance to validation images, each class in turn; all distances."""
    seen = look_at_dataset(validation, extractor, size=model.image_size, batch_size=BATCH, device=model.device)
    reference, found = Reference.of("validation", seen), dict[str, float]()
    for guidance in GUIDANCES:
        production = Production(num, 0, BATCH, every_class(model), {"guidance": guidance})
        compared = compare(look_at_model(model, production, extractor), reference, extractor.name)
        found[f"{guidance:g}"] = next(value for name, value in compared.metrics.items() if name.startswith("fd_"))
    best = min(found, key=lambda name: found[name])
    model.recipe["sampling"] = model.recipe.get("sampling", {}) | {"guidance": float(best)}
    store.write_settings(model.parts, folder)
    return found


def measure_classes(
    model: mage.Mage, train: ImageDataset, reference: Reference, extractor: Extractor, *, num: int, mirror: bool
) -> dict[str, float]:
    """Metrics of `num` images, each class in turn; `class_accuracy`: the share that a judge takes for their class."""
    classes, right = every_class(model), list[Tensor]()
    judge = judge_of(
        train, model.image_size, JudgeConfig(mirror=mirror), cache=None, precision=model.precision, device=model.device
    )
    production = Production(num, 1, BATCH, classes)

    def batches() -> Iterator[Tensor]:
        for first in range(0, num, BATCH):
            numbers = range(first, min(first + BATCH, num))
            pixels = images.to_uint8(production.make(model, numbers))
            asked = torch.tensor([number % len(classes) for number in numbers])
            right.append(judge(pixels).argmax(dim=1).cpu() == asked)
            yield pixels

    metrics = compare(look_at(batches(), extractor, num), reference, extractor.name, suffix="_classes").metrics
    return metrics | {"class_accuracy": float(torch.cat(right).double().mean())}
