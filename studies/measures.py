"""Generation of a packaged model: guidance chosen by validation images; distances, newness and classes of samples."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from choices import Parts
from torch import Tensor

import mage
from mage import images
from mage.data.datasets import ImageDataset
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.extractors import Extractor, build_extractor
from mage.evaluation.generation import compare, one_number
from mage.evaluation.generation_metrics import Compared
from mage.evaluation.judge import JudgeConfig, judge_of
from mage.evaluation.metric import Measured, Metric
from mage.evaluation.recognisable import CONFIDENT
from mage.evaluation.seen import Reference, SeenImages, look_at
from mage.runs.generation import look_at_dataset, look_at_model, random_subset
from mage.runs.production import Production
from mage.runs.showcase import MOST_JUDGED
from mage.sampling.classes import NO_CLASS
from mage.store import folder as store

GUIDANCES, TOLERANCE = (0.0, 0.5, 1.0, 1.5, 2.0), 0.1
"""Weights to try; of those about as near as the best one, the largest, which follows classes most: farther from the
distance of as many real images by no more than this share."""
BATCH = 250
FRESH_SEED = 3
"""Of samples that are measured; smaller ones are those of `mage tune-sampler` and of the choice of guidance."""


def every_class(model: mage.Mage) -> tuple[int, ...]:
    """Numbers of the model's classes; empty if it has none, or clusters, which nobody would ask for."""
    clusters = model.recipe["method"].get("conditions", {}).get("source") == "clusters"
    return () if clusters else tuple(range(model.require_generator().config.num_classes))


def without_class(model: mage.Mage) -> tuple[int, ...]:
    """The classes of samples without one: empty for a model that has none."""
    return (NO_CLASS,) if model.require_generator().config.num_classes else ()


def choose_guidance(
    folder: Path, model: mage.Mage, parts: Parts, extractor: Extractor, *, num: int
) -> dict[str, float]:
    """Store the largest guidance with about the least Frechet distance to validation images; all distances."""
    look = partial(look_at_dataset, extractor=extractor, size=model.image_size, batch_size=BATCH, device=model.device)
    reference, found = Reference.of("validation", look(parts.validation)), dict[str, float]()
    real = _distance(compare(look(random_subset(parts.train, num)), reference, extractor.name))
    for guidance in GUIDANCES:
        production = Production(num, 0, BATCH, every_class(model), {"guidance": guidance})
        found[f"{guidance:g}"] = _distance(
            compare(look_at_model(model, production, extractor), reference, extractor.name)
        )
    least = min(found.values())
    best = max(float(name) for name, value in found.items() if value <= least + TOLERANCE * abs(least - real))
    model.recipe["sampling"] = model.recipe.get("sampling", {}) | {"guidance": best}
    store.write_settings(model.parts, folder)
    return found | {"real": real}


def _distance(measured: Measured) -> float:
    return next(value for name, value in measured.metrics.items() if name.startswith("fd_"))


def measure_generation(model: mage.Mage, parts: Parts, *, num: int, mirrored: bool) -> Measured:
    """Frechet distances to the test images: of samples, without and with classes, of reconstructions, of real images.

    Also whether samples are new: authenticity needs the features of all training images, and is left out where there
    are many. It is measured of the test images, too, which are new. `class_accuracy`: the share of samples that a judge
    takes for their class; `class_confident_share`: the share of which it is sure, of whatever class.
    """
    extractor, size = build_extractor("efflite0", device=model.device), model.image_size
    look = partial(look_at_dataset, extractor=extractor, size=size, batch_size=BATCH, device=model.device)
    real, some = look(parts.test), random_subset(parts.train, num)
    reference = Reference.of("test", real)
    training = Reference.of("train", look(parts.train)) if len(parts.train) <= MOST_JUDGED else None
    found = Measured()

    def keep(seen: SeenImages, suffix: str, new: SeenImages | None) -> None:
        """Metrics of images against the test images; of `new`, whether they are new."""
        found.include(compare(seen, reference, extractor.name, suffix=suffix))
        if new is not None and training is not None:
            found.add(one_number("authenticity", Compared(new, training, "efflite0", suffix=suffix)))

    keep(look(some), "_real", real)
    restored = (images.to_uint8(model.decode_tokens(model.encode(batch))) for batch in batches_of(some, size))
    keep(look_at(restored, extractor, len(some)), "_restored", None)
    if classes := every_class(model):
        judge = judge_of(
            parts.train, size, JudgeConfig(mirror=mirrored), cache=None, precision=model.precision, device=model.device
        )
        right, sure = list[Tensor](), list[Tensor]()

        def watched() -> Iterator[Tensor]:
            production = Production(num, FRESH_SEED, BATCH, classes)
            for first in range(0, num, BATCH):
                numbers = range(first, min(first + BATCH, num))
                pixels = images.to_uint8(production.make(model, numbers))
                asked = torch.tensor([number % len(classes) for number in numbers])
                verdict = judge(pixels).softmax(dim=1).max(dim=1)
                right.append(verdict.indices.cpu() == asked)
                sure.append(verdict.values.cpu() > CONFIDENT)
                yield pixels

        seen = look_at(watched(), extractor, num)
        keep(seen, "_classes", seen)
        asked_for = f"{num:,} samples, each class in turn; a judge trained on {len(parts.train):,} real images"
        found.add(Metric("class_accuracy", float(torch.cat(right).double().mean()), asked_for))
        found.add(Metric("class_confident_share", float(torch.cat(sure).double().mean()), asked_for))
    seen = look_at_model(model, Production(num, FRESH_SEED, BATCH, without_class(model) if classes else ()), extractor)
    keep(seen, "_none" if classes else "", seen)
    return found


def batches_of(dataset: ImageDataset, size: tuple[int, int]) -> Iterator[Tensor]:
    """The images of a data set in [0, 1], as a model of this size takes them."""
    for batch in evaluation_batches(dataset, build_transform(TransformConfig(size=size)), batch_size=BATCH):
        yield images.to_float(batch["images"])
