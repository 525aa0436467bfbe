"""`mage robustness`: accuracy on corrupted and on attacked images."""

from pathlib import Path
from typing import Any

import mage
from mage import atomic
from mage.cli.console import check_output_file, counting, emit, note, skipped_sentence
from mage.cli.options.robustness import Options
from mage.data.datasets import ImageDataset, load_dataset
from mage.data.transforms import TransformConfig
from mage.evaluation.features import extract_features
from mage.evaluation.linear_head import LinearHead, fit_head
from mage.evaluation.robustness import CorruptionResult, baseline_error, official_corruption_accuracy
from mage.evaluation.suite import SuiteConfig, measure_representation, plain_scorer
from mage.models import Classifier


def run(options: Options) -> None:
    """Measure, write and print."""
    if options.out is not None:
        check_output_file(options.out, (".json",))
    error = None
    if options.baseline is not None:
        error = baseline_error(options.baseline, official=options.official is not None)
    model = mage.load(options.model, precision=options.precision, device=options.device)
    train, test = (
        load_dataset(options.data, split=split, data_root=options.data_root, channels=model.channels)
        for split in ("train", "test")
    )
    corruption_parts = ("corruptions",) if options.official is None else ()
    parts = (*corruption_parts, "attacks") if options.attacks else corruption_parts
    values: dict[str, Any] = {"model": str(options.model), "data": options.data, "metrics": {}, "protocol": {}}
    if parts:
        config = SuiteConfig(
            parts=parts,
            pool=options.pool,
            corruption_images=options.corruption_images,
            attack_images=options.attack_images,
            batch_size=options.batch_size,
            seed=options.seed,
        )
        report = measure_representation(model, train, test, config, on_part=lambda part: note(options, f"{part} ..."))
        values |= report.as_dict()
    if options.official is not None:
        official = _official(options, model, train, test, options.official)
        description = f"official images in {options.official.name}: {', '.join(official.accuracy)}"
        values["metrics"] |= {"corruption_accuracy": official.mean, "corruption_clean_accuracy": official.clean}
        values["protocol"] |= {"corruption_accuracy": description}
        values["corruption_accuracy"], values["corruption_accuracy_per_kind"] = official.accuracy, official.per_kind
    if error is not None:
        clean = values["metrics"]["corruption_clean_accuracy"]
        mce = CorruptionResult(clean, values["corruption_accuracy"]).mean_corruption_error(error)
        values["metrics"]["mean_corruption_error"] = mce
        values["protocol"]["mean_corruption_error"] = f"relative to {options.baseline}"
    if options.out is not None:
        atomic.write_json(options.out, values)
    lines = [f"{name:30} {value:.4f}   {values['protocol'].get(name, '')}" for name, value in values["metrics"].items()]
    lines += [f"  {kind:20} {accuracy:.2%}" for kind, accuracy in values["corruption_accuracy_per_kind"].items()]
    emit(options, values, "\n".join(lines) + skipped_sentence([*train.skipped, *test.skipped]))


def _official(
    options: Options, model: mage.Mage, train: ImageDataset, test: ImageDataset, folder: Path
) -> CorruptionResult:
    transform = TransformConfig(size=model.image_size)
    head: LinearHead | None = None
    if not isinstance(model.transformer, Classifier):
        note(options, "linear probe ...")
        features = extract_features(
            lambda pixels: model.features(pixels, options.pool), train, transform, batch_size=options.batch_size
        )
        head = fit_head(features, seed=options.seed).head
    with counting(0, "image", options) as done:
        return official_corruption_accuracy(
            plain_scorer(model, head, options.pool), test, folder, transform,
            batch_size=options.batch_size, on_images=done,
        )  # fmt: skip
