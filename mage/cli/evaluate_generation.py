"""`mage evaluate generation`: Frechet and kernel distance, Inception Score, precision and its kin, in one pass."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mage
from mage import atomic
from mage.cli.options import check_parent, counting, emit, note
from mage.cli.sampler_options import SamplerOptions
from mage.data.datasets import ImageDataset, load_dataset
from mage.evaluation.extractors import Extractor, build_extractor
from mage.evaluation.generation import Reference, SeenImages
from mage.precision import resolve_device
from mage.recipes.generation import (
    beside_real,
    look_at_dataset,
    look_at_features,
    look_at_model,
    open_samples,
    some,
)
from mage.recipes.production import Production
from mage.recipes.record import commit, machine


@dataclass(frozen=True, kw_only=True)
class Options(SamplerOptions):
    """Measure generated images against real ones: OUT/generation.json. Every name says extractor, reference, number."""

    samples: Path
    """folder of images, of tar shards or of features, by `mage generate`; or a model or run, which then generates"""
    num: int = 10_000
    """images to generate, of a model"""
    data: str | None = None
    """data set of real images by name, or a folder; default: what the model was trained on"""
    data_root: str | None = None
    """folder where a named data set's files are"""
    split: Literal["train", "test", "all"] = "test"
    """part of the data set that is the reference; as many images of the other part give the value of real images"""
    reference: Path | None = None
    """.npz of ready statistics instead: by --save-reference, or mu and sigma in the layout of ADM and pytorch-fid"""
    save_reference: Path | None = None
    """write the reference's statistics to this .npz"""
    extractor: str = "efflite0"
    """efflite0, inception, timm:NAME or fidelity:NAME"""
    extractor_weights: str = ""
    """file of the extractor's weights, where it is not found by itself"""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """how real images of another size are scaled to the samples' size, before their centre is cut"""
    real: bool = True
    """also measure real images of the other part"""
    out: Path | None = None
    """folder for the numbers as JSON"""
    batch_size: int = 64
    """images at a time"""


def run(options: Options) -> None:
    """Look, compare, write and print."""
    if options.num < 2 or options.batch_size < 1:
        raise ValueError(f"--num must be at least 2 and --batch-size 1, not {options.num} and {options.batch_size}")
    if options.out is not None:
        check_parent(options.out / "generation.json")
    if options.save_reference is not None and options.save_reference.suffix != ".npz":
        raise ValueError(f"--save-reference {options.save_reference} must end in .npz")
    extractor = build_extractor(
        options.extractor, weights=options.extractor_weights, device=resolve_device(options.device)
    )
    seen, size, trained_on = _samples(options, extractor)
    data = options.data or (trained_on if options.reference is None else None)
    if options.reference is not None:
        reference = Reference.load(options.reference, extractor=extractor.fingerprint)
        real = _dataset(options, data, options.split) if data is not None else None
    elif data is not None:
        real_images = _dataset(options, data, options.split)
        note(options, f"reference: {len(real_images):,} images of {data} {options.split}")
        looked = _look(options, real_images, extractor, size)
        if options.save_reference is not None:
            looked.save(options.save_reference)
        reference = Reference.of(options.split, looked)
        real = _other_part(options, data)
    else:
        raise ValueError("give --data or --reference: what the samples are compared with")
    beside = None
    if options.real and real is not None:
        beside = _look(options, some(real, seen.count), extractor, size)
    quality = beside_real(seen, reference, extractor, beside)
    result = {
        "commit": commit(), "machine": machine(), "samples": str(options.samples), "seed": options.seed,
        "sampling": options.sampling(), "class": list(options.class_), "metrics": quality.metrics,
        "protocols": quality.protocols, "left_out": quality.left_out,
    }  # fmt: skip
    if options.out is not None:
        atomic.write_json(options.out / "generation.json", result)
    width = max(map(len, quality.metrics))
    lines = [f"{name:{width}}  {value:10.6g}   {quality.protocols[name]}" for name, value in quality.metrics.items()]
    emit(options, result, "\n".join(lines + [f"not measured: {reason}" for reason in quality.left_out]))


def _samples(options: Options, extractor: Extractor) -> tuple[SeenImages, tuple[int, int] | None, str | None]:
    """What was seen; the size of the images and what their model was trained on, as far as that is known."""
    samples = open_samples(options.samples)
    if samples.features is not None:
        return look_at_features(samples.features, extractor), None, None
    if samples.images is not None:
        height, width = samples.images.load(0).shape[-2:]
        note(options, f"{len(samples.images):,} images of {height} x {width} pixels")
        return _look(options, samples.images, extractor, (height, width)), (height, width), None
    model = mage.load(options.samples, precision=options.precision, device=options.device)
    production = Production(
        options.num, options.seed, options.batch_size, options.classes(model), options.sampling()
    )  # fmt: skip
    with counting(options.num, "image", options) as done:
        seen = look_at_model(model, production, extractor, on_images=done)
    return seen, model.image_size, model.recipe.get("data", {}).get("name")


def _look(options: Options, dataset: ImageDataset, extractor: Extractor, size: tuple[int, int] | None) -> SeenImages:
    if size is None:
        height, width = dataset.load(0).shape[-2:]
        size = (height, width)
    with counting(len(dataset), "image", options) as done:
        return look_at_dataset(
            dataset, extractor, size=size, interpolation=options.interpolation, batch_size=options.batch_size,
            device=resolve_device(options.device), on_images=done,
        )  # fmt: skip


def _dataset(options: Options, data: str, split: str) -> ImageDataset:
    return load_dataset(data, split=split, data_root=options.data_root)


def _other_part(options: Options, data: str) -> ImageDataset | None:
    """Real images that are not the reference; none where the reference is everything there is."""
    if options.split == "all":
        return None
    return _dataset(options, data, "train" if options.split == "test" else "test")
