"""`mage tune-sampler`: find the sampler's settings for a model, and store them with it."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import mage
from mage import atomic
from mage.cli.options import check_parent, emit, note
from mage.cli.sampler_options import SamplerOptions
from mage.data.datasets import load_dataset
from mage.evaluation.extractors import build_extractor
from mage.evaluation.generation import Reference, compare
from mage.runs.generation import look_at_dataset, look_at_model
from mage.runs.production import Production
from mage.runs.tuning import HIGHER_IS_BETTER, Sampling, Trial, TuningConfig, tune
from mage.store import folder as store


@dataclass(frozen=True, kw_only=True)
class Options(SamplerOptions):
    """Try samplers on a model and store the best with it. Options of the sampler that are given stay fixed."""

    model: Path
    """model or run folder; its settings are changed"""
    data: str | None = None
    """data set of real images; default: what the model was trained on"""
    data_root: str | None = None
    """folder where a named data set's files are"""
    split: Literal["train", "test", "all"] = "test"
    """part of the data set that samples are compared with"""
    metric: Literal["frechet", "kernel", "is", "precision", "recall", "density", "coverage"] = "frechet"
    """what is made best: the Frechet or kernel distance, or one of the others"""
    extractor: str = "efflite0"
    """efflite0, inception, timm:NAME or fidelity:NAME"""
    extractor_weights: str = ""
    """file of the extractor's weights, where it is not found by itself"""
    num: int = 1000
    """images per candidate"""
    try_orders: tuple[str, ...] = ("confidence", "halton")
    """orders to try"""
    try_steps: tuple[int, ...] = (8, 12, 20)
    """numbers of steps to try; of two that are about as good, the smaller is stored"""
    try_guidances: tuple[float, ...] = ()
    """weights of the guidance to try, of a model with classes"""
    store: bool = True
    """store the best settings in the model"""
    out: Path | None = None
    """JSON file for all that was tried"""
    batch_size: int = 250
    """images at a time"""


def run(options: Options) -> None:
    """Search, store and print."""
    if options.num < 2 or options.batch_size < 1:
        raise ValueError(f"--num must be at least 2 and --batch-size 1, not {options.num} and {options.batch_size}")
    config = replace(
        TuningConfig(), orders=options.try_orders, steps=options.try_steps, guidances=options.try_guidances
    )  # fmt: skip
    if options.out is not None:
        check_parent(options.out)
    model = mage.load(options.model, precision=options.precision, device=options.device)
    data = options.data or model.recipe.get("data", {}).get("name")
    if data is None:
        raise ValueError("this model does not say what it was trained on: give --data")
    classes = options.classes(model)
    model.check_generation(classes or None, **options.sampling() | {"guidance": max((0.0, *config.guidances)) or None})
    if config.guidances and not classes and not model.notes.get("class_shares"):
        raise ValueError("guidance changes nothing in images without class: add --class all to tune it")
    extractor = build_extractor(options.extractor, weights=options.extractor_weights, device=model.device)
    real = load_dataset(data, split=options.split, data_root=options.data_root, channels=model.channels)
    seen = look_at_dataset(real, extractor, size=model.image_size, device=model.device)
    reference = Reference.of(options.split, seen)
    prefix = {
        "frechet": "fid" if extractor.name == "inception" else "fd",
        "kernel": "kid" if extractor.name == "inception" else "kd",
    }.get(options.metric, options.metric)
    sign = -1.0 if prefix in HIGHER_IS_BETTER else 1.0
    names: list[str] = []

    def score(sampling: Sampling, seed: int) -> float:
        production = Production(options.num, seed, options.batch_size, classes, dict(sampling))
        found = compare(look_at_model(model, production, extractor), reference, extractor.name).metrics
        name = next((name for name in found if name.startswith(f"{prefix}_")), None)
        if name is None:
            raise ValueError(f"{extractor.name} gives no {options.metric} here; it gives {', '.join(found)}")
        names[:] = [name]
        return sign * found[name]

    def tell(trial: Trial) -> None:
        note(options, f"{names[0]} {sign * trial.value:.5g}   {_words(trial.sampling)}   seed {trial.seed}")

    tuned = tune(score, config, fixed=options.sampling(), seed=options.seed, on_trial=tell)
    trials = [asdict(trial) | {"value": sign * trial.value} for trial in tuned.trials]
    result: dict[str, Any] = {
        "metric": names[0], "best": tuned.best.sampling, "value": sign * tuned.best.value, "trials": trials
    }  # fmt: skip
    if options.out is not None:
        atomic.write_json(options.out, result)
    stored = ""
    if options.store:
        folder = store.find_folder(options.model)
        model.recipe["sampling"] = model.recipe.get("sampling", {}) | tuned.best.sampling
        model.notes["sampling_tuned"] = {key: result[key] for key in ("metric", "value")} | {"num": options.num}
        store.write_settings(model.parts, folder)
        stored = f"; stored in {folder}"
    sentence = f"{_words(tuned.best.sampling)}: {names[0]} {result['value']:.5g} with fresh random numbers{stored}"
    emit(options, result, sentence)


def _words(sampling: Sampling) -> str:
    return ", ".join(f"{name} {value}" for name, value in sampling.items())
