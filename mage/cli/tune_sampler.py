"""`mage tune-sampler`: find the sampler's settings for a model, and store them with it."""

from dataclasses import asdict, replace
from typing import Any

import mage
from mage import atomic
from mage.cli.arguments import classes_of, sampling_of
from mage.cli.console import emit, note
from mage.cli.options.tune_sampler import Options
from mage.data.datasets import ImageDataset, load_dataset
from mage.evaluation.extractors import Extractor, build_extractor
from mage.evaluation.generation import one_number
from mage.evaluation.generation_metrics import Compared
from mage.evaluation.metric import Metric
from mage.evaluation.seen import Reference, SeenImages
from mage.runs.generation import look_at_dataset, look_at_model, random_subset
from mage.runs.inputs import data_of_model, trained_on
from mage.runs.production import Production
from mage.runs.tuning import Sampling, Trial, TuningConfig, tune
from mage.sampling.classes import NO_CLASS, class_numbers
from mage.store import folder as store

ANEW: dict[str, Any] = {"token_temperature": 1.0, "encoder_keep": 1.0, "reuse": 1}
"""Settings of the candidates unless they say otherwise: not those of an earlier search, which the model has stored."""
ENOUGH_IMAGES = 1000
"""Number of generated and of real images below which the result is unreliable."""


def run(options: Options) -> None:
    """Search, store and print."""
    if options.store:
        _check_own(options)
    model = mage.load(options.model, precision=options.precision, device=options.device)
    sees_all = not model.require_generator().config.decoder_depth  # without a decoder nothing can be dropped
    config = replace(
        TuningConfig(), orders=options.try_orders, steps=options.try_steps, guidances=options.try_guidances,
        encoder_keeps=() if sees_all else options.try_encoder_keep, reuses=options.try_reuse,
    )  # fmt: skip
    data = options.data or trained_on(model)
    if data is None:
        raise ValueError("the model's recipe does not name its training data: give --data")
    classes = classes_of(options, model)
    model.check_generation(
        classes or None, **sampling_of(options) | {"guidance": max((0.0, *config.guidances)) or None}
    )
    count = model.require_generator().config.num_classes
    asked = class_numbers(classes, len(classes), count, model.class_names).tolist() if classes and count else []
    if config.guidances and (set(asked) == {NO_CLASS} if asked else not model.notes.get("class_shares")):
        raise ValueError("guidance has no effect on images without class: add --class all to tune it")
    if options.metric == "authenticity" and options.split != "train":
        raise ValueError("--metric authenticity compares samples with training images: add --split train")
    extractor = build_extractor(options.extractor, weights=options.extractor_weights, device=model.device)
    real = _real_images(options, data, model)
    seen = look_at_dataset(real, extractor, size=model.image_size, device=model.device)
    reference = Reference.of(options.split, seen)
    warnings = _warnings(options, seen, data)
    for warning in warnings:
        note(options, f"WARNING: {warning}")
    last: list[Metric] = []

    def score(sampling: Sampling, seed: int) -> float:
        production = Production(options.num, seed, options.batch_size, classes, ANEW | dict(sampling))
        compared = Compared(look_at_model(model, production, extractor), reference, extractor.name)
        last[:] = [one_number(options.metric, compared)]
        return -last[0].value if last[0].better == "higher" else last[0].value

    floor = _floor(options, data, model, reference, extractor)

    def report_trial(trial: Trial) -> None:
        note(options, f"{last[0].name} {last[0].value:.5g}   {_words(trial.sampling)}   seed {trial.seed}")

    tuned = tune(
        score, config, fixed=sampling_of(options), seed=options.seed, floor=floor or 0.0, on_trial=report_trial
    )
    sign = -1.0 if last[0].better == "higher" else 1.0
    trials = [asdict(trial) | {"value": sign * trial.value} for trial in tuned.trials]
    result: dict[str, Any] = {
        "metric": last[0].name, "best": tuned.best.sampling, "value": sign * tuned.best.value, "trials": trials,
        "real": floor, "warnings": warnings,
    }  # fmt: skip
    if options.out is not None:
        atomic.write_json(options.out, result)
    stored = ""
    if options.store:
        folder = store.find_folder(options.model)
        model.recipe["sampling"] = model.recipe.get("sampling", {}) | ANEW | tuned.best.sampling
        model.notes["sampling_tuned"] = {key: result[key] for key in ("metric", "value")} | {
            "num": options.num, "data": data, "split": options.split
        }  # fmt: skip
        store.write_settings(model.parts, folder)
        stored = f"; stored in {folder}"
    sentence = f"{_words(tuned.best.sampling)}: {last[0].name} {result['value']:.5g} with fresh random numbers{stored}"
    emit(options, result, sentence)


def _check_own(options: Options) -> None:
    """Raise ValueError, before the search, if its result could not be stored."""
    try:
        store.check_own(store.find_folder(options.model))
    except ValueError as error:
        raise ValueError(f"{error}; or search with --no-store") from None


def _real_images(options: Options, data: str, model: mage.Mage) -> ImageDataset:
    """Images that samples are compared with; validation images are those held out by the model's training."""
    if options.split == "validation":
        return data_of_model(model, data, options.data_root).validation
    return load_dataset(data, split=options.split, data_root=options.data_root, channels=model.channels)


def _floor(options: Options, data: str, model: mage.Mage, reference: Reference, extractor: Extractor) -> float | None:
    """The Frechet distance of as many training images as are generated; none for other metrics, or too few images."""
    if options.metric != "frechet" or options.split not in ("validation", "test"):
        return None
    train = data_of_model(model, data, options.data_root).train
    if len(train) < options.num:
        return None
    some = look_at_dataset(random_subset(train, options.num), extractor, size=model.image_size, device=model.device)
    return one_number(options.metric, Compared(some, reference, extractor.name)).value


def _warnings(options: Options, seen: SeenImages, data: str) -> list[str]:
    """Warnings about the result: chosen on test images, or on too few images."""
    warnings = []
    if options.split in ("test", "all"):
        warnings.append(
            "settings chosen on test images make later results on them too good; --split validation, the default, "
            "leaves them unused"
        )
    count, real = min(options.num, seen.count), seen.count
    if count >= ENOUGH_IMAGES:
        return warnings
    fewer = f"{data} {options.split} has {real:,} images" if real < ENOUGH_IMAGES else f"--num is {options.num:,}"
    warnings.append(
        f"{fewer}: with fewer than {ENOUGH_IMAGES:,} on either side, chance outweighs the sampler, and the best "
        "of many trials is partly a lucky one. Give more (--data, --split train, --num), or try first with --no-store"
    )
    return warnings


def _words(sampling: Sampling) -> str:
    return ", ".join(f"{name} {value}" for name, value in sampling.items())
