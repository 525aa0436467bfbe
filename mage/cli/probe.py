"""`mage probe`: linear probe on a model's features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import mage
from mage.cli.options import Common, counting, emit, skipped_sentence
from mage.data.datasets import load_dataset
from mage.data.transforms import TransformConfig
from mage.evaluation.features import Features, extract_features
from mage.evaluation.linear_probe import LarsConfig, linear_probe


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(Common):
    """Options of commands that measure features."""

    model: Path
    """model or run folder"""
    data: str
    """data set by name, or a folder with one folder per class"""
    data_root: str | None = None
    """folder where a named data set's files are"""
    pool: Literal["mean", "class"] = "mean"
    """mean over the tokens, or the class token"""
    seed: int = 0
    """seed of everything random"""
    batch_size: int = 256
    """images at a time"""


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """Train a linear classifier on frozen features of the training images, measure it on the test images."""

    protocol: Literal["lars", "lbfgs"] = "lbfgs"
    """lars: as published, 90 epochs; lbfgs: logistic regression to convergence"""
    epochs: int = 90
    """epochs of the lars protocol"""
    base_learning_rate: float = 0.1
    """of the lars protocol, for a batch of 256"""


def run(options: Options) -> None:
    """Probe and print the accuracy."""
    if options.epochs < 1 or options.base_learning_rate <= 0:
        raise ValueError("--epochs and --base-learning-rate must be positive")
    train, test, skipped = train_and_test_features(options)
    config = LarsConfig(epochs=options.epochs, base_learning_rate=options.base_learning_rate)
    result = linear_probe(train, test, protocol=options.protocol, seed=options.seed, lars=config)
    values: dict[str, Any] = {
        "linear_probe_accuracy": result.accuracy,
        "top5_accuracy": result.top5,
        "protocol": f"{result.protocol} {options.pool} fixed centre crops",
        "settings": result.settings,
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "skipped": skipped,
    }
    emit(
        options,
        values,
        f"linear probe ({values['protocol']}): {result.accuracy:.2%} of {len(test.labels):,} test images"
        f"{skipped_sentence(skipped)}",
    )


class FeaturePair(NamedTuple):
    """Features of both splits, and the image files that could not be read."""

    train: Features
    test: Features
    skipped: list[str]


def train_and_test_features(options: FeatureOptions) -> FeaturePair:
    """Features of both splits under the evaluation transform."""
    if options.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, not {options.batch_size}")
    model = mage.load(options.model, precision=options.precision, device=options.device)
    transform = TransformConfig(size=model.image_size)
    parts: list[Features] = []
    skipped: list[str] = []
    for split in ("train", "test"):
        dataset = load_dataset(options.data, split=split, data_root=options.data_root, channels=model.channels)
        with counting(len(dataset), "image", options) as done:
            parts.append(
                extract_features(
                    lambda images: model.features(images, options.pool),
                    dataset,
                    transform,
                    batch_size=options.batch_size,
                    on_images=done,
                )
            )
        skipped += dataset.skipped
    return FeaturePair(parts[0], parts[1], skipped)
