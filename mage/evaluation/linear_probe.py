"""Linear probe: accuracy of a linear classifier on frozen features (paper, section 4.3).

Results name one of three ways of training. `lars` is the published one, in `lars_probe.py`. `lbfgs` is multinomial
logistic regression solved to convergence, with its L2 penalty chosen on held-out training images: faster on small data
sets, and without a learning rate to choose. `ridge` is least squares on the class indicators, in closed form: it takes
seconds, is slightly less accurate, and is used to monitor a running training.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from mage.data.transforms import cut_in_words
from mage.evaluation.classification import ProbeResult
from mage.evaluation.features import Features, check_pair, extract_features
from mage.evaluation.lars_probe import LarsConfig, lars_probe
from mage.evaluation.linear_head import FittedHead, Solver, fit_head
from mage.evaluation.metric import Description, Metric
from mage.evaluation.representation import REPRESENTATION_PROTOCOLS, Representation, RepresentationProtocol

Training = Literal["lars", "lbfgs", "ridge"]


def linear_probe(
    train: Features, test: Features, *, protocol: str = "lars", seed: int = 0, lars: LarsConfig | None = None
) -> ProbeResult:
    """Accuracy on `test` of a linear classifier trained on `train`; protocol: "lars", "lbfgs" or "ridge".

    lars: settings of that protocol. Raises ValueError for another protocol, and as `check_pair`.
    """
    check_pair(train, test)
    if protocol == "lars":
        return lars_probe(train, test, config=lars or LarsConfig(), seed=seed)
    if protocol == "lbfgs":
        return lbfgs_probe(train, test, seed=seed)
    if protocol == "ridge":
        return ridge_probe(train, test, seed=seed)
    raise ValueError(f'protocol must be "lars", "lbfgs" or "ridge", not {protocol!r}')


def lbfgs_probe(train: Features, test: Features, *, seed: int = 0) -> ProbeResult:
    """Logistic regression on standardised features; its penalty is chosen on held-out training images."""
    return _solved(train, test, "lbfgs", seed)


def ridge_probe(train: Features, test: Features, *, seed: int = 0) -> ProbeResult:
    """Least squares from standardised features to class indicators, in closed form."""
    return _solved(train, test, "ridge", seed)


def _solved(train: Features, test: Features, solver: Solver, seed: int) -> ProbeResult:
    check_pair(train, test)
    return measure_head(fit_head(train, solver=solver, seed=seed), test, solver)


def measure_head(fitted: FittedHead, test: Features, solver: Solver) -> ProbeResult:
    """Accuracy of a solved classifier on test features."""
    with torch.inference_mode():
        scores = fitted.head(test.features)
    return ProbeResult.of(scores, test.labels, solver, fitted.settings, fitted.head)


def _described(variant: str, features: str) -> Description:
    explanation = f"Test accuracy of a linear classifier {features}."
    return Description(f"Linear probe{variant}", explanation, "share", "higher", bar=True)


@REPRESENTATION_PROTOCOLS.register("linear")
@dataclass(frozen=True)
class LinearProbe(RepresentationProtocol):
    """A linear classifier on the features of one fixed view per image."""

    training: Training = "lbfgs"
    """Training of the classifier."""
    pool: Literal["mean", "class", "last4", ""] = ""
    """Add this to the name of the metric; mean and class use one half only of features with pool="both"."""

    metrics: ClassVar = {
        "linear_probe_accuracy": _described("", "on frozen features: how much of the class the features show"),
        "linear_probe_mean_accuracy": _described(", mean", "on the mean of the tokens' features"),
        "linear_probe_class_accuracy": _described(", class token", "on the class token's features"),
        "linear_probe_last4_accuracy": _described(
            ", last four blocks", "on features of the last four blocks, as DINO is probed"
        ),
        "linear_probe_lars_accuracy": _described(
            " (LARS)", "trained as in the paper: LARS after a batch normalisation without parameters"
        ),
        "linear_probe_ridge_accuracy": _described(" (least squares)", "found by least squares"),
        "linear_probe_top5_accuracy": Description(
            "Linear probe, top 5", "Share of test images whose class is among the five best.", "share", "higher"
        ),
    }

    def measure(self, subject: Representation) -> Iterator[Metric]:
        """Accuracy; for logistic regression on all features, also top-5 accuracy.

        Raises ValueError for features of another pool than the probe's: both, for one half of them.
        """
        needed = "both" if self.pool in ("mean", "class") else self.pool or subject.pool
        if subject.pool != needed:
            raise ValueError(
                f"a probe of pool={self.pool!r} needs features of pool={needed!r}, not of {subject.pool!r}"
            )
        pool = self.pool or subject.pool
        halves = self.pool in ("mean", "class")
        train, test = (_half(part, self.pool) if halves else part for part in (subject.train, subject.test))
        if self.training == "lbfgs" and not halves:  # corruptions and attacks use this head, too
            result = measure_head(subject.fitted, test, "lbfgs")
        else:
            result = linear_probe(train, test, protocol=self.training, seed=subject.seed)
        words = [word for word in ("" if self.training == "lbfgs" else self.training, self.pool) if word]
        counts = f"{len(train.labels):,} training and {len(test.labels):,} test images"
        protocol = f"{result.protocol} {pool}, fixed {cut_in_words(subject.transform)}, {counts}"
        answers = result.confusion.named(subject.test_images.class_names)
        name = "_".join(["linear_probe", *words, "accuracy"])
        yield self.metric(name, result.accuracy, protocol, **answers.as_dict())
        if not words:
            yield self.metric("linear_probe_top5_accuracy", result.top5, protocol)


@dataclass(frozen=True)
class RawPixels(RepresentationProtocol):
    """Logistic regression on the pixels themselves, as a baseline for features."""

    metrics: ClassVar = {
        "raw_pixel_accuracy": Description(
            "Raw pixels",
            "Test accuracy of a linear classifier on the pixels themselves: what features must beat to be of use.",
            "share",
            bar=True,
        )
    }

    def measure(self, subject: Representation) -> Iterator[Metric]:
        """Accuracy on the test images."""
        train, test = (
            extract_features(lambda pixels: pixels, dataset, subject.transform, batch_size=subject.batch_size)
            for dataset in (subject.train_images, subject.test_images)
        )
        accuracy = lbfgs_probe(train, test, seed=subject.seed).accuracy
        yield self.metric("raw_pixel_accuracy", accuracy, "logistic regression on pixels")


def _half(features: Features, pool: str) -> Features:
    """The half of features with pool="both" that holds the means of the tokens, or the class tokens."""
    mean, class_token = features.features.chunk(2, dim=1)
    return Features(mean if pool == "mean" else class_token, features.labels)
