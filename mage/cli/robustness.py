"""`mage robustness`: accuracy on corrupted and on attacked images."""

from pathlib import Path

import mage
from mage import atomic
from mage.cli.console import counting, emit, note, skipped_sentence
from mage.cli.options.robustness import Options
from mage.data.datasets import train_and_test
from mage.evaluation.corruptions import KINDS
from mage.evaluation.metric import Measured
from mage.evaluation.representation import Representation
from mage.evaluation.robustness import (
    CorruptionResult,
    Corruptions,
    baseline_error,
    check_baseline,
    official_corruption_accuracy,
)
from mage.evaluation.suite import build_protocols, measure_representation


def run(options: Options) -> None:
    """Measure, write and print."""
    error = None
    if options.baseline is not None:
        error = baseline_error(options.baseline, official=options.official is not None)
        if options.official is None:
            check_baseline(error, KINDS)
    model = mage.load(options.model, precision=options.precision, device=options.device)
    train, test = train_and_test(options.data, data_root=options.data_root, channels=model.channels)
    subject = Representation(
        model, train, test, pool=options.pool, batch_size=options.batch_size, seed=options.seed
    )  # fmt: skip
    names = (*(("corruptions",) if options.official is None else ()), *(("attacks",) if options.attacks else ()))
    settings = {
        "corruptions": {"test_images": options.corruption_images},
        "attacks": {"test_images": options.attack_images},
    }
    measured = Measured()
    if names:
        protocols = build_protocols(names, settings)
        measured = measure_representation(subject, protocols, on_start=lambda part: note(options, f"{part} ..."))
    if options.official is not None:
        _official(options, subject, options.official, measured)
    if error is not None:
        accuracy = measured.details["corruption_accuracy"]["accuracy"]
        result = CorruptionResult(measured.metrics["corruption_clean_accuracy"], accuracy)
        try:
            mce = result.mean_corruption_error(error)
            measured.add(Corruptions().metric("mean_corruption_error", mce, f"relative to {options.baseline}"))
        except ValueError as reason:  # the kinds of an official folder are known when it was measured
            measured.left_out.append(f"mean_corruption_error: {reason}")
    values = {"model": str(options.model), "data": options.data, **measured.as_dict()}
    if options.out is not None:
        atomic.write_json(options.out, values)
    lines = [f"{name:30} {value:.4f}   {measured.protocols[name]}" for name, value in measured.metrics.items()]
    per_kind = measured.details["corruption_accuracy"]["per_kind"]
    lines += [f"  {kind:20} {accuracy:.2%}" for kind, accuracy in per_kind.items()]
    lines += [f"not measured: {reason}" for reason in measured.left_out]
    emit(options, values, "\n".join(lines) + skipped_sentence([*train.skipped, *test.skipped]))


def _official(options: Options, subject: Representation, folder: Path, measured: Measured) -> None:
    """Measure on official files of corrupted images."""
    note(options, f"{subject.classifier_name} ...")
    with counting(0, "image", options) as done:
        result = official_corruption_accuracy(
            subject.classifier, subject.test_images, folder, subject.transform,
            batch_size=options.batch_size, on_images=done,
        )  # fmt: skip
    protocol = f"{subject.classifier_name}; official images in {folder.name}: {', '.join(result.accuracy)}"
    for metric in Corruptions().numbers(result, protocol):
        measured.add(metric)
