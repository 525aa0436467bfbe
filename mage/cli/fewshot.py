"""`mage fewshot`: accuracy from a handful of labelled images per class."""

import math

from mage.cli.console import counting, emit, skipped_sentence
from mage.cli.options.fewshot import Options
from mage.cli.probe import train_and_test_features
from mage.evaluation.fewshot import few_shot


def run(options: Options) -> None:
    """Measure and print."""
    train, test, skipped, cut = train_and_test_features(options, published=options.protocol == "lars")
    with counting(len(options.counts) * options.draws, "draw", options) as done:
        results = few_shot(
            train, test, counts=options.counts, draws=options.draws, protocol=options.protocol, seed=options.seed,
            on_draw=done,
        )  # fmt: skip
    values = {
        "few_shot_accuracy": {result.per_class: result.mean for result in results},
        "interval_95": {
            result.per_class: result.interval if math.isfinite(result.interval) else None for result in results
        },
        "draws": {result.per_class: result.draws for result in results},
        "protocol": f"{options.protocol} {options.pool} {options.draws} draws, {cut}",
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "skipped": skipped,
    }
    lines = [
        f"{result.per_class:4} per class: {result.mean:.2%}"
        + (f" ± {100 * result.interval:.2f}" if math.isfinite(result.interval) else "")
        for result in results
    ]
    emit(options, values, "\n".join([*lines, f"({values['protocol']}, 95 % interval){skipped_sentence(skipped)}"]))
