"""Reproduction of the published numbers from the published weights, with the paper's protocols.

Each part writes a JSON file and is not measured again while that file exists, so that a run of several days can be
interrupted (paper, sections 4.2 to 4.4).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mage import atomic, images, rng, settings
from mage.checkpoints import official
from mage.data.datasets import ImageDataset, Subset, train_and_test
from mage.data.image_sets import content_of, digest
from mage.data.transforms import evaluation_transform
from mage.evaluation.classification import classification_accuracy
from mage.evaluation.extractors import Extractor
from mage.evaluation.features import Features, extract_features
from mage.evaluation.fewshot import few_shot
from mage.evaluation.image_classifier import model_fingerprint
from mage.evaluation.lars_probe import RANDOM_CROPS, LarsConfig, lars_probe, lars_probe_on_crops, probe_crops
from mage.evaluation.seen import Reference
from mage.pipeline import Mage, load
from mage.recipes import FINETUNES, FinetuneRecipe
from mage.runs.finetune import finetune
from mage.runs.generation import compare_with_real, look_at_dataset, look_at_features, random_subset
from mage.runs.launch import Launch
from mage.runs.production import Production, claim, produce
from mage.runs.sinks import FeatureShards
from mage.store.files import file_hash
from mage.store.folder import CONFIG

Part = Literal["generation", "linear", "fewshot", "finetune"]
WATCHED_SHARE = 0.001
"""Of ImageNet's training images: 1,281, which fine-tuning does not learn from."""
PARTS: tuple[Part, ...] = ("generation", "linear", "fewshot", "finetune")
FEW = (5, 10, 13, 25)
DRAWS = 5
DEPENDS: dict[Part, tuple[str, ...]] = {
    "generation": ("num", "steps", "choice_temperature", "batch_size", "seed"),  # and the extractor
    "linear": ("epochs", "crops", "seed"),
    "fewshot": ("seed",),
    "finetune": ("seed",),
}
"""Settings that a part's numbers depend on: after a change the part is measured again."""
ROUNDING: images.Rounding = "truncate"
"""Conversion of generated images to 8 bits before FID, as in the public code."""


@dataclass(frozen=True)
class Published:
    """One row of the paper; accuracies from 0 to 1."""

    name: str
    metrics: dict[str, float]
    choice_temperature: float
    base_learning_rate: float
    """Of the linear probe."""
    finetune: str
    """Recipe of fine-tuning."""


PUBLISHED: dict[int, Published] = {
    768: Published(
        "MAGE ViT-B",
        {"fid": 11.1, "is": 81.2, "linear": 0.747, "finetune": 0.825,
         "fewshot5": 0.484, "fewshot10": 0.574, "fewshot13": 0.598, "fewshot25": 0.637},
        6.0, 0.1, "base",
    ),
    1024: Published(
        "MAGE ViT-L", {"fid": 9.10, "is": 105.1, "linear": 0.789, "finetune": 0.839}, 11.0, 0.05, "large"
    ),
}  # fmt: skip
"""By width of the network. The sampler's temperature for ViT-B is the paper's, for ViT-L that of RCG."""


@dataclass(frozen=True)
class ReproduceConfig:
    """Parts to measure and their settings."""

    parts: tuple[Part, ...] = ("generation", "linear", "fewshot")
    num: int = 50_000
    """Generated images."""
    steps: int = 20
    choice_temperature: float | None = None
    """None: the published value for this size."""
    batch_size: int = 64
    epochs: int = 90
    """Of the linear probe."""
    crops: Literal["random", "fixed"] = "random"
    """random: as published, a feature pass per epoch; fixed: centre crops, one pass."""
    seed: int = 0
    workers: int = 0
    """Processes, or threads, that read images; numbers do not depend on it."""


Announce = Callable[[str], None]


def open_weights(
    checkpoint: Path,
    tokenizer: Path | None,
    folder: Path,
    *,
    config: dict[str, Any] | None = None,
    precision: str = "auto",
    device: str = "auto",
) -> Mage:
    """Load released weights, converted once into a model folder, or an existing model folder."""
    if checkpoint.is_dir():
        if tokenizer is not None or config is not None:
            raise ValueError(
                f"{checkpoint} is a model folder, which --tokenizer and --config do not change: `mage convert` makes "
                "one of MAGE's file and the tokenizer's"
            )
        model = load(checkpoint, precision=precision, device=device)
    else:
        files = [checkpoint, *([tokenizer] if tokenizer is not None else [])]
        source = {"files": [file_hash(path) for path in files], "config": config}
        note = folder.with_name(f"{folder.name}.source.json")
        if not (folder / CONFIG).is_file() or not note.is_file() or json.loads(note.read_text()) != source:
            official.convert(files, folder, config=config)
            atomic.write_json(note, source)
        model = load(folder, precision=precision, device=device)
    if model.tokenizer is None:
        raise ValueError(f"{checkpoint} holds no tokenizer: give its file with --tokenizer")
    if model.transformer is None:
        raise ValueError(f"{checkpoint} holds a tokenizer only: give MAGE's file with --checkpoint")
    return model


def published(model: Mage) -> Published:
    """The paper's row for a network of this width; a row without numbers for other widths."""
    return PUBLISHED.get(model.require_transformer().config.width, Published("not published", {}, 6.0, 0.1, "small"))


def reproduce(
    model: Mage,
    data: str,
    out: Path,
    extractor: Extractor | None,
    config: ReproduceConfig,
    *,
    precision: str = "auto",
    device: str = "auto",
    data_root: str | None = None,
    announce: Announce = lambda sentence: None,
) -> dict[str, float]:
    """Measure the parts missing in `out`; metrics have the names of `PUBLISHED` and those of their protocols.

    What is kept of an interrupted linear probe or fine-tuning has the fingerprint of both networks in its name.

    data: a folder in ImageNet's layout, train/CLASS/ and val/CLASS/. extractor: of the part generation.
    """
    row = published(model)
    weights = model_fingerprint(model)
    results: dict[str, float] = {}
    for part in config.parts:
        path = out / f"{part}.json"
        part_settings = {name: getattr(config, name) for name in DEPENDS[part]} | {"data": data, "weights": weights}
        part_settings["precision"] = model.precision
        if part == "generation" and extractor is not None:
            part_settings |= {"extractor": extractor.fingerprint, "rounding": ROUNDING}
        if part == "linear" and config.crops == "random":
            part_settings["protocol"] = RANDOM_CROPS
        if part == "finetune":
            part_settings["recipe"] = settings.to_dict(_finetune_recipe(row, data, config))
        if path.is_file() and (stored := json.loads(path.read_text()))["settings"] == part_settings:
            announce(f"{part}: already in {path}")
            results |= stored["metrics"]
            continue
        announce(f"{part} ...")
        train, test = train_and_test(data, data_root=data_root, channels=model.channels)
        if part == "generation":
            assert extractor is not None
            folder = out / f"features_{re.sub('[^A-Za-z0-9]+', '_', extractor.name)}"
            metrics = _generation(model, train, test, folder, extractor, config, row, announce)
        elif part == "linear":
            metrics = _linear(model, train, test, config, row, out / f"linear_{weights}_{_mark(train)}.pt")
        elif part == "fewshot":
            metrics = _few_shot(model, train, test, config)
        else:
            recipe = _finetune_recipe(row, data, config)
            launch = Launch(out, device=device, precision=precision, workers=config.workers, data_root=data_root)
            launch = launch.inside(f"finetune_{weights}")
            finetune(recipe, launch, model)
            tuned = load(launch.out, precision=precision, device=device)
            cut = recipe.data.test_transform(tuned.image_size)
            metrics = {"finetune": classification_accuracy(tuned.classify, test, cut).top1}
        atomic.write_json(path, {"settings": part_settings, "metrics": metrics})
        results |= metrics
    return results


def _mark(dataset: ImageDataset) -> str:
    """What tells a data set from others, in a few characters."""
    return digest(content_of(dataset).encode())


def _finetune_recipe(row: Published, data: str, config: ReproduceConfig) -> FinetuneRecipe:
    """The paper's, on all training images but a thousandth, by which the training is watched."""
    recipe = FINETUNES[row.finetune]()
    validation = replace(recipe.data.validation, share=WATCHED_SHARE)
    return replace(recipe, data=replace(recipe.data, name=data, validation=validation), seed=config.seed)


def _generation(
    model: Mage, train: ImageDataset, test: ImageDataset, folder: Path, extractor: Extractor, config: ReproduceConfig,
    row: Published, announce: Announce,
) -> dict[str, float]:  # fmt: skip
    temperature = row.choice_temperature if config.choice_temperature is None else config.choice_temperature
    sampling = {"steps": config.steps, "choice_temperature": temperature}
    production = Production(config.num, config.seed, config.batch_size, sampling=sampling)
    sink = FeatureShards(folder, config.batch_size * 16, extractor, ROUNDING)
    claim(folder, model, production, "features", sink.unit, extractor=extractor, rounding=ROUNDING)
    done = 0
    for count in produce(model, production, sink):
        done += count
        announce(f"{done:,} of {config.num:,} images")

    def look(dataset: ImageDataset) -> Any:
        return look_at_dataset(
            dataset, extractor, size=model.image_size, interpolation="bilinear", device=model.device,
            batch_size=config.batch_size,
        )  # fmt: skip

    reference = Reference.of("val", look(test))
    seen = look_at_features(folder, extractor, config.num)
    metrics = compare_with_real(seen, reference, extractor, look(random_subset(train, config.num))).metrics
    names = {"fid": "fid" if extractor.name == "inception" else "fd", "is": "is"}
    short = {}
    for name, prefix in names.items():
        long = next((key for key in metrics if key.startswith(f"{prefix}_") and not key.endswith("_real")), None)
        if long is not None:
            short[name if extractor.name == "inception" else f"{prefix}_{extractor.name}"] = metrics[long]
    return short | metrics


def _linear(
    model: Mage, train: ImageDataset, test: ImageDataset, config: ReproduceConfig, row: Published, keep: Path
) -> dict[str, float]:
    reading: dict[str, Any] = {"batch_size": config.batch_size, "num_workers": config.workers}
    lars = LarsConfig(epochs=config.epochs, base_learning_rate=row.base_learning_rate)
    measured = extract_features(model, test, evaluation_transform(model.image_size), **reading)
    if config.crops == "fixed":
        fixed = extract_features(model, train, evaluation_transform(model.image_size), **reading)
        return {"linear_fixed_crops": lars_probe(fixed, measured, config=lars, seed=config.seed).accuracy}
    crops = probe_crops(model.image_size)
    result = lars_probe_on_crops(
        model.features, train, measured, crops, config=lars, seed=config.seed,
        images_at_once=config.batch_size, num_workers=config.workers, keep=keep,
    )  # fmt: skip
    return {"linear": result.accuracy}


def _few_shot(model: Mage, train: ImageDataset, test: ImageDataset, config: ReproduceConfig) -> dict[str, float]:
    assert train.labels is not None
    smallest = int(np.bincount(train.labels).min())
    counts = [count for count in FEW if count <= smallest]
    if not counts:
        raise ValueError(
            f"the smallest class of {train.name} has {smallest} images, but few-shot needs {FEW[0]} per class"
        )
    pool = _subset_per_class(train, max(counts) * DRAWS, config.seed)

    def describe(dataset: ImageDataset) -> Features:
        return extract_features(
            model,
            dataset,
            evaluation_transform(model.image_size),
            batch_size=config.batch_size,
            num_workers=config.workers,
        )

    results = few_shot(describe(pool), describe(test), counts=counts, draws=DRAWS, seed=config.seed)
    return {f"fewshot{result.per_class}": result.mean for result in results}


def _subset_per_class(dataset: ImageDataset, count: int, seed: int) -> ImageDataset:
    """At most `count` random images of each class: enough for all draws, in a tenth of a pass over ImageNet."""
    assert dataset.labels is not None
    chosen: list[int] = []
    for label in np.unique(dataset.labels):
        members = np.flatnonzero(dataset.labels == label)
        order = np.random.default_rng(rng.stream_seed(seed, "few per class", int(label))).permutation(members)
        chosen += order[:count].tolist()
    return Subset(dataset, chosen)


def table(row: Published, metrics: dict[str, float]) -> str:
    """Measured and published values as a Markdown table; metrics that were not measured are left out."""
    lines = [f"| {row.name} | measured here | published |", "|---|---|---|"]
    for name, value in metrics.items():
        if name.endswith("_real") and not name.startswith(("fid", "fd")):
            continue
        published = row.metrics.get(name)
        lines.append(f"| {name} | {_shown(name, value)} | {'' if published is None else _shown(name, published)} |")
    return "\n".join(lines) + "\n"


def _shown(name: str, value: float) -> str:
    return f"{value:.1%}" if name.startswith(("linear", "fewshot", "finetune")) else f"{value:.4g}"
