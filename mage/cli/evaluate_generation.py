"""`mage evaluate generation`: all metrics of generated images, from one pass."""

from pathlib import Path
from typing import Any, NamedTuple

import mage
from mage import atomic
from mage.cli.arguments import classes_of, sampling_of
from mage.cli.console import counting, emit, note
from mage.cli.options.evaluate_generation import Options
from mage.data.datasets import ImageDataset, load_dataset
from mage.device import resolve_device
from mage.evaluation.extractors import Extractor, build_extractor
from mage.evaluation.seen import Reference, SeenImages
from mage.runs.generation import (
    Samples,
    compare_with_real,
    look_at_dataset,
    look_at_features,
    look_at_model,
    open_samples,
    random_subset,
)
from mage.runs.inputs import trained_on
from mage.runs.production import Production, image_shape_in
from mage.runs.record import commit, machine


def run(options: Options) -> None:
    """Extract features, compare, write and print."""
    if options.save_reference is not None and options.reference is not None:
        raise ValueError("--save-reference writes the statistics of --data, and --reference names others: give one")
    if options.save_reference is not None and options.save_reference.suffix != ".npz":
        raise ValueError(f"--save-reference {options.save_reference} must end in .npz")
    extractor = build_extractor(
        options.extractor, weights=options.extractor_weights, device=resolve_device(options.device)
    )
    samples = _opened(options)
    shape = samples.shape
    data = options.data or (samples.trained_on if options.reference is None else None)
    # all that can be wrong with the real images comes to light before images are generated
    reference = _reference(options.reference, extractor) if options.reference is not None else None
    real_images = _dataset(options, data, options.split, shape) if data is not None and reference is None else None
    real = _other_part(options, data, shape) if data is not None else None
    seen = _look_at_samples(options, samples, extractor)
    if reference is None:
        assert real_images is not None
        note(options, f"reference: {len(real_images):,} images of {data} {options.split}")
        looked = _look(options, real_images, extractor, shape)
        if options.save_reference is not None:
            looked.save(options.save_reference)
        reference = Reference.of(options.split, looked)
    seen_real = None
    if options.real and real is not None:
        seen_real = _look(options, random_subset(real, seen.count), extractor, shape)
    quality = compare_with_real(seen, reference, extractor, seen_real)
    result: dict[str, Any] = {
        "commit": commit(), "machine": machine(), "samples": str(options.samples), "metrics": quality.metrics,
        "protocols": quality.protocols, "left_out": quality.left_out, "warnings": quality.warnings,
    }  # fmt: skip
    if samples.model is not None:
        result |= {"seed": options.seed, "sampling": sampling_of(options), "class": list(options.class_)}
    if options.out is not None:
        atomic.write_json(options.out / "generation.json", result)
    width = max(map(len, quality.metrics))
    lines = [f"{name:{width}}  {value:10.6g}   {quality.protocols[name]}" for name, value in quality.metrics.items()]
    lines += [f"not measured: {reason}" for reason in quality.left_out]
    emit(options, result, "\n".join(lines + [f"WARNING: {warning}" for warning in quality.warnings]))


class _Opened(NamedTuple):
    """The samples before they are looked at, with shape and training data if known."""

    source: Samples
    shape: tuple[int, int, int] | None
    """Channels, height and width of the images."""
    model: mage.Mage | None = None
    trained_on: str | None = None
    """Data set on which the model was trained."""


def _opened(options: Options) -> _Opened:
    """The samples. Raises ValueError if neither options nor model say what they are compared with."""
    opened = _source(options)
    if options.data is None and options.reference is None and opened.trained_on is None:
        raise ValueError("give --data or --reference, the real images that the samples are compared with")
    return opened


def _source(options: Options) -> _Opened:
    source = open_samples(options.samples)
    if source.model is None and (sampling_of(options) or options.class_):
        raise ValueError(
            f"{options.samples} holds samples that are there: settings of the sampler would change nothing"
        )
    if source.features is not None:
        return _Opened(source, image_shape_in(source.features))
    if source.images is not None:
        channels, height, width = image_shape_in(options.samples) or source.images.load(0).shape
        note(options, f"{len(source.images):,} images of {height} x {width} pixels")
        return _Opened(source, (channels, height, width))
    model = mage.load(options.samples, precision=options.precision, device=options.device)
    known = None if options.data is not None or options.reference is not None else trained_on(model)
    return _Opened(source, (model.channels, *model.image_size), model, known)


def _look_at_samples(options: Options, samples: _Opened, extractor: Extractor) -> SeenImages:
    if samples.source.features is not None:
        return look_at_features(samples.source.features, extractor)
    if samples.source.images is not None:
        return _look(options, samples.source.images, extractor, samples.shape)
    assert samples.model is not None
    production = Production(
        options.num, options.seed, options.batch_size, classes_of(options, samples.model), sampling_of(options)
    )  # fmt: skip
    with counting(options.num, "image", options) as done:
        return look_at_model(samples.model, production, extractor, rounding=options.rounding, on_images=done)


def _reference(path: Path, extractor: Extractor) -> Reference:
    """Statistics in a file. Raises ValueError unless they are those of this extractor."""
    reference = Reference.load(path, extractor=extractor.fingerprint)
    reference.check(extractor)
    return reference


def _look(
    options: Options, dataset: ImageDataset, extractor: Extractor, shape: tuple[int, int, int] | None
) -> SeenImages:
    """Features of images cropped to the samples' size, or if that is unknown, to the size of the first image."""
    height, width = (shape or dataset.load(0).shape)[-2:]
    with counting(len(dataset), "image", options) as done:
        return look_at_dataset(
            dataset, extractor, size=(height, width), interpolation=options.interpolation,
            batch_size=options.batch_size, device=resolve_device(options.device), on_images=done,
        )  # fmt: skip


def _dataset(options: Options, data: str, split: str, shape: tuple[int, int, int] | None) -> ImageDataset:
    """Real images, grey if the samples are."""
    channels = 1 if shape is not None and shape[0] == 1 else None
    return load_dataset(data, split=split, data_root=options.data_root, channels=channels)


def _other_part(options: Options, data: str, shape: tuple[int, int, int] | None) -> ImageDataset | None:
    """Real images outside the reference; None if the reference is the whole data set."""
    if options.split == "all":
        return None
    return _dataset(options, data, "train" if options.split == "test" else "test", shape)
