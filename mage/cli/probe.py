"""`mage probe`: linear probe on a model's features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import mage
from mage.cli.options import Common, counting, emit, skipped_sentence
from mage.data.datasets import ImageDataset, load_dataset
from mage.data.transforms import TransformConfig, evaluation_transform
from mage.evaluation.features import Features, extract_features
from mage.evaluation.linear_probe import (
    RANDOM_CROPS,
    LarsConfig,
    ProbeResult,
    lars_probe_on_crops,
    linear_probe,
    probe_crops,
)


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(Common):
    """Options of commands that measure features."""

    model: Path
    """model or run folder"""
    data: str
    """data set by name, or a folder with one folder per class"""
    data_root: str | None = None
    """folder where a named data set's files are"""
    pool: Literal["mean", "class", "both"] = "mean"
    """mean over the tokens, the class token, or the two side by side"""
    seed: int = 0
    """seed of everything random"""
    batch_size: int = 256
    """images at a time"""


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """Train a linear classifier on frozen features of the training images, measure it on the test images."""

    protocol: Literal["lars", "lbfgs", "ridge"] = "lbfgs"
    """lars: as published, 90 epochs; lbfgs: logistic regression to convergence; ridge: least squares, in closed form"""
    epochs: int = 90
    """epochs of the lars protocol"""
    crops: Literal["fixed", "random"] = "fixed"
    """of training images, lars protocol only. random: as published, a new crop of each in every epoch, which costs as
    many passes as there are epochs; fixed: the centre, one pass"""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """smallest and largest share of the area that a random crop shows"""
    base_learning_rate: float = 0.1
    """of the lars protocol, for a batch of 256"""


def run(options: Options) -> None:
    """Probe and print the accuracy."""
    if options.epochs < 1 or options.base_learning_rate <= 0:
        raise ValueError("--epochs and --base-learning-rate must be positive")
    if options.crops == "random" and options.protocol != "lars":
        raise ValueError("--crops random goes with --protocol lars: the lbfgs protocol takes one view per image")
    config = LarsConfig(epochs=options.epochs, base_learning_rate=options.base_learning_rate)
    if options.crops == "random":
        result, sizes, skipped = _probe_on_crops(options, config)
    else:
        train, test, skipped = train_and_test_features(options)
        result = linear_probe(train, test, protocol=options.protocol, seed=options.seed, lars=config)
        sizes = (len(train.labels), len(test.labels))
    kind = RANDOM_CROPS if options.crops == "random" else "fixed centre crops"
    values: dict[str, Any] = {
        "linear_probe_accuracy": result.accuracy,
        "top5_accuracy": result.top5,
        "protocol": f"{result.protocol} {options.pool} {kind}",
        "settings": result.settings,
        "train_images": sizes[0],
        "test_images": sizes[1],
        "skipped": skipped,
    }
    emit(
        options,
        values,
        f"linear probe ({values['protocol']}): {result.accuracy:.2%} of {sizes[1]:,} test images"
        f"{skipped_sentence(skipped)}",
    )


def _probe_on_crops(options: Options, config: LarsConfig) -> tuple[ProbeResult, tuple[int, int], list[str]]:
    model, (train, test) = _open(options)
    transform = probe_crops(model.image_size, options.crop_scale)
    measured = _describe(options, model, test, evaluation_transform(model.image_size))
    with counting(config.epochs * len(train), "image", options) as done:
        result = lars_probe_on_crops(
            lambda images: model.features(images, options.pool), train, measured, transform, config=config,
            seed=options.seed, images_at_once=options.batch_size, on_images=done,
        )  # fmt: skip
    return result, (len(train) - len(train.skipped), len(measured.labels)), [*train.skipped, *test.skipped]


class FeaturePair(NamedTuple):
    """Features of both splits, and the image files that could not be read."""

    train: Features
    test: Features
    skipped: list[str]


def train_and_test_features(options: FeatureOptions) -> FeaturePair:
    """Features of both splits under the evaluation transform."""
    model, (train, test) = _open(options)
    transform = TransformConfig(size=model.image_size)
    features = [_describe(options, model, dataset, transform) for dataset in (train, test)]
    return FeaturePair(features[0], features[1], [*train.skipped, *test.skipped])


def _open(options: FeatureOptions) -> tuple[mage.Mage, tuple[ImageDataset, ImageDataset]]:
    if options.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, not {options.batch_size}")
    model = mage.load(options.model, precision=options.precision, device=options.device)
    train, test = (
        load_dataset(options.data, split=split, data_root=options.data_root, channels=model.channels)
        for split in ("train", "test")
    )
    return model, (train, test)


def _describe(options: FeatureOptions, model: mage.Mage, dataset: ImageDataset, transform: TransformConfig) -> Features:
    with counting(len(dataset), "image", options) as done:
        return extract_features(
            lambda images: model.features(images, options.pool),
            dataset,
            transform,
            batch_size=options.batch_size,
            on_images=done,
        )
