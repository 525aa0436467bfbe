"""`mage probe`: linear probe on a model's features."""

from collections.abc import Callable
from typing import Any, NamedTuple

import mage
from mage.cli.console import counting, emit, skipped_sentence
from mage.cli.options.base import FeatureOptions
from mage.cli.options.probe import Options
from mage.data.datasets import ImageDataset, load_dataset
from mage.data.transforms import TransformConfig, evaluation_transform
from mage.evaluation.classification import ProbeResult
from mage.evaluation.features import Features, extract_features
from mage.evaluation.lars_probe import RANDOM_CROPS, LarsConfig, lars_probe_on_crops, probe_crops
from mage.evaluation.linear_probe import linear_probe


def run(options: Options) -> None:
    """Probe and print the accuracy."""
    if options.base_learning_rate <= 0:
        raise ValueError(f"--base-learning-rate must be positive, not {options.base_learning_rate}")
    if options.crops == "random" and options.protocol != "lars":
        raise ValueError("--crops random needs --protocol lars: the other protocols take one view per image")
    config = LarsConfig(epochs=options.epochs, base_learning_rate=options.base_learning_rate)
    if options.crops == "random":
        result, sizes, skipped = _probe_on_crops(options, config)
    else:
        cut = evaluation_transform if options.protocol == "lars" else whole_centre
        train, test, skipped = train_and_test_features(options, cut)
        result = linear_probe(train, test, protocol=options.protocol, seed=options.seed, lars=config)
        sizes = (len(train.labels), len(test.labels))
    kind = RANDOM_CROPS if options.crops == "random" else "fixed centre crops"
    if options.crops == "fixed" and options.protocol == "lars":
        kind = "fixed centre crops of images scaled to 292/256 of the size"
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


def whole_centre(size: tuple[int, int]) -> TransformConfig:
    """The centre crop that shows as much as it can."""
    return TransformConfig(size=size)


def train_and_test_features(
    options: FeatureOptions, cut: Callable[[tuple[int, int]], TransformConfig] = whole_centre
) -> FeaturePair:
    """Features of the images of both splits, cut to the model's size alike."""
    model, (train, test) = _open(options)
    transform = cut(model.image_size)
    features = [_describe(options, model, dataset, transform) for dataset in (train, test)]
    return FeaturePair(features[0], features[1], [*train.skipped, *test.skipped])


def _open(options: FeatureOptions) -> tuple[mage.Mage, tuple[ImageDataset, ImageDataset]]:
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
