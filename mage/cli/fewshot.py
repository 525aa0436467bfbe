"""`mage fewshot`: accuracy from a handful of labelled images per class."""

from dataclasses import dataclass
from typing import Literal

from mage.cli.options import counting, emit, skipped_sentence
from mage.cli.probe import FeatureOptions, train_and_test_features
from mage.evaluation.fewshot import COUNTS, DRAWS, few_shot


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """Train a linear classifier on a few images per class, several times; measure it on all test images."""

    counts: tuple[int, ...] = COUNTS
    """labelled images per class"""
    draws: int = DRAWS
    """random choices of these images; the interval comes from their spread"""
    protocol: Literal["lars", "lbfgs", "ridge"] = "lbfgs"
    """how the classifier is found, as in `mage probe`"""


def run(options: Options) -> None:
    """Measure and print."""
    train, test, skipped = train_and_test_features(options)
    with counting(len(options.counts) * options.draws, "draw", options) as done:
        results = few_shot(
            train, test, counts=options.counts, draws=options.draws, protocol=options.protocol, seed=options.seed,
            on_draw=done,
        )  # fmt: skip
    values = {
        "few_shot_accuracy": {result.per_class: result.mean for result in results},
        "interval_95": {result.per_class: result.interval for result in results},
        "draws": {result.per_class: result.draws for result in results},
        "protocol": f"{options.protocol} {options.pool} {options.draws} draws",
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "skipped": skipped,
    }
    lines = [f"{result.per_class:4} per class: {result.mean:.2%} ± {100 * result.interval:.2f}" for result in results]
    emit(options, values, "\n".join([*lines, f"({values['protocol']}, 95 % interval){skipped_sentence(skipped)}"]))
