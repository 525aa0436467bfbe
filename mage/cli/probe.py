"""`mage probe`: linear probe on a model's features; the classifier is kept with --out."""

from dataclasses import replace
from typing import Any, NamedTuple

import mage
from mage import atomic
from mage.cli.console import counting, emit, skipped_sentence
from mage.cli.options.base import FeatureOptions
from mage.cli.options.probe import Options
from mage.data.datasets import ImageDataset, train_and_test
from mage.data.transforms import TransformConfig, cut_in_words, evaluation_transform
from mage.evaluation.classification import ProbeResult
from mage.evaluation.confusion import with_interval
from mage.evaluation.features import Features, extract_features
from mage.evaluation.image_classifier import (
    FILES,
    FORMAT,
    PROBED,
    ClassifierConfig,
    ImageClassifier,
    check_new_folder,
)
from mage.evaluation.lars_probe import RANDOM_CROPS, LarsConfig, lars_probe_on_crops, probe_crops
from mage.evaluation.linear_probe import linear_probe
from mage.report import write_report
from mage.runs.record import command_line, commit, machine


def run(options: Options) -> None:
    """Probe, print the accuracy, and keep the classifier if a folder is given."""
    if options.base_learning_rate <= 0:
        raise ValueError(f"--base-learning-rate must be positive, not {options.base_learning_rate}")
    if options.crops == "random" and options.protocol != "lars":
        raise ValueError("--crops random needs --protocol lars: the other protocols take one view per image")
    if options.out is not None:
        check_new_folder(options.out)
    config = LarsConfig(epochs=options.epochs, base_learning_rate=options.base_learning_rate)
    model, (train, test) = _open(options)
    cut = cut_of(options, model.image_size, published=options.protocol == "lars")
    if options.crops == "random":
        transform, measured = probe_crops(model.image_size, options.crop_scale), _describe(options, model, test, cut)
        with counting(config.epochs * len(train), "image", options) as done:
            result = lars_probe_on_crops(
                lambda images: model.features(images, options.pool), train, measured, transform, config=config,
                seed=options.seed, images_at_once=options.batch_size, on_images=done,
            )  # fmt: skip
        train_images = len(train) - len(train.skipped)
    else:
        known, measured = (_describe(options, model, dataset, cut) for dataset in (train, test))
        result = linear_probe(known, measured, protocol=options.protocol, seed=options.seed, lars=config)
        train_images = len(known.labels)
    kind = RANDOM_CROPS if options.crops == "random" else f"fixed {cut_in_words(cut)}"
    protocol = f"{result.protocol} {options.pool} {kind}"
    answers = result.confusion.named(train.class_names)
    skipped = [*train.skipped, *test.skipped]
    values: dict[str, Any] = {
        "linear_probe_accuracy": result.accuracy,
        "top5_accuracy": result.top5,
        **answers.as_dict(),
        "protocol": protocol,
        "settings": result.settings,
        "train_images": train_images,
        "test_images": answers.images,
        "skipped": skipped,
    }
    tested = f"{answers.images:,} test images{skipped_sentence(skipped)}"
    lines = [f"linear probe ({protocol}): {with_interval(answers.right, answers.images)} of {tested}"]
    lines += [answers.sentence()]
    if options.out is not None:
        _keep(options, model, result, ClassifierConfig(FORMAT, train.class_names, options.pool, cut.resize, protocol))
        values["out"] = str(options.out)
        lines.append(f"{options.out}: the classifier (mage predict FOLDER --model {options.out} --out FILE.csv)")
    emit(options, values, "\n".join(filter(None, lines)))


def _keep(options: Options, model: mage.Mage, result: ProbeResult, config: ClassifierConfig) -> None:
    """Write the classifier, its results and a report into --out, which appears when all is written."""
    assert options.out is not None
    assert result.head is not None
    answers = result.confusion.named(config.class_names)
    names = answers.class_names[: len(result.head.bias)]  # classes at the end without training images have no score
    word = "" if options.protocol == "lbfgs" else f"{options.protocol}_"
    metrics = {f"linear_probe_{word}accuracy": result.accuracy}
    details = {name: answers.as_dict() for name in metrics}
    if not word:
        metrics["linear_probe_top5_accuracy"] = result.top5
    values = {
        "command": command_line("mage probe"),
        "commit": commit(),
        "machine": machine(),
        "model": str(options.model),
        "data": options.data,
        "seed": options.seed,
        "metrics": metrics,
        "protocols": {name: f"{config.protocol}, {options.data}" for name in metrics},
        "details": details,
    }
    with atomic.replacing_folder(options.out, replaces=FILES) as folder:
        ImageClassifier(model, result.head, replace(config, class_names=names)).write(folder)
        atomic.write_json(folder / PROBED, values)
    write_report(options.out)


class FeaturePair(NamedTuple):
    """Features of both splits, the image files that could not be read, and how images were cut."""

    train: Features
    test: Features
    skipped: list[str]
    cut: str
    """What was cut from the images, in words."""


def cut_of(options: FeatureOptions, size: tuple[int, int], *, published: bool = False) -> TransformConfig:
    """What `--cut` asks for; published: whether "auto" is the paper's."""
    paper = options.cut == "paper" or (options.cut == "auto" and published)
    return evaluation_transform(size) if paper else TransformConfig(size=size)


def train_and_test_features(options: FeatureOptions, *, published: bool = False) -> FeaturePair:
    """Features of the images of both splits, cut to the model's size alike."""
    model, (train, test) = _open(options)
    cut = cut_of(options, model.image_size, published=published)
    features = [_describe(options, model, dataset, cut) for dataset in (train, test)]
    return FeaturePair(features[0], features[1], [*train.skipped, *test.skipped], cut_in_words(cut))


def _open(options: FeatureOptions) -> tuple[mage.Mage, tuple[ImageDataset, ImageDataset]]:
    model = mage.load(options.model, precision=options.precision, device=options.device)
    return model, train_and_test(options.data, data_root=options.data_root, channels=model.channels)


def _describe(options: FeatureOptions, model: mage.Mage, dataset: ImageDataset, transform: TransformConfig) -> Features:
    with counting(len(dataset), "image", options) as done:
        return extract_features(
            lambda images: model.features(images, options.pool),
            dataset,
            transform,
            batch_size=options.batch_size,
            on_images=done,
        )
