"""Few-shot: a linear classifier on frozen features of few labelled images per class (paper, section 4.3).

Accuracy depends on the choice of the images; therefore several choices are drawn, and a confidence interval of the mean
is given: over other choices, for the same test images. All models are compared on the same draws.

Letters: n images, m drawn images.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from scipy import stats
from torch import Tensor

from mage import rng
from mage.data.transforms import cut_in_words
from mage.evaluation.features import Features, check_pair
from mage.evaluation.linear_probe import linear_probe
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.evaluation.representation import REPRESENTATION_PROTOCOLS, Representation, RepresentationProtocol

COUNTS = (1, 5, 10, 13, 25)
"""Images per class, as in published tables; 13 per class are one per cent of ImageNet."""
DRAWS = 5


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy from 0 to 1 with a number of labelled images per class."""

    per_class: int
    mean: float
    interval: float
    """Half the width of the 95 % confidence interval of the mean over choices of the images, see `confidence_interval`;
    infinite for a single draw, and where every draw is all images."""
    draws: tuple[float, ...]


def few_shot(
    train: Features,
    test: Features,
    *,
    counts: Sequence[int] = COUNTS,
    draws: int = DRAWS,
    protocol: str = "lbfgs",
    seed: int = 0,
    on_draw: Callable[[int], None] | None = None,
) -> list[FewShotResult]:
    """Accuracy for each number of images per class, over `draws` random choices of them.

    protocol: of `linear_probe`; penalties are chosen on the drawn images alone. on_draw: called with 1 after each draw.
    Raises ValueError if a class has too few images.
    """
    check_pair(train, test)
    if draws < 1 or not counts or min(counts) < 1:
        raise ValueError(f"few-shot needs at least one draw and one image per class, not {draws} and {tuple(counts)}")
    sizes = torch.bincount(train.labels)[train.labels.unique()]
    smallest = int(sizes.min())
    if max(counts) > smallest:
        raise ValueError(f"the smallest class has {smallest} training images, fewer than the {max(counts)} per class")
    results = []
    for per_class in counts:
        accuracies = []
        for draw in range(draws):
            chosen = choose_per_class(train.labels, per_class, rng.generator(seed, "few-shot", per_class, draw))
            part = Features(train.features[chosen], train.labels[chosen])
            accuracies.append(linear_probe(part, test, protocol=protocol, seed=seed).accuracy)
            if on_draw is not None:
                on_draw(1)
        results.append(
            FewShotResult(
                per_class,
                sum(accuracies) / draws,
                confidence_interval(accuracies, shared=float((per_class / sizes).mean())),
                tuple(accuracies),
            )
        )
    return results


def choose_per_class(labels: Int[Tensor, " n"], per_class: int, generator: torch.Generator) -> Int[Tensor, " m"]:
    """Indices of `per_class` random images of each class, class by class."""
    parts = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero()[:, 0]
        parts.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    return torch.cat(parts)


def confidence_interval(values: Sequence[float], shared: float = 0.0) -> float:
    """Half the width of the 95 % confidence interval of the mean, by Student's t; infinite for a single value.

    shared: the share of their images that two draws have in common. Such draws differ less than independent ones, which
    the variance of their mean is corrected for (Nadeau and Bengio 2003).
    """
    count = len(values)
    if count < 2 or shared >= 1:
        return math.inf
    deviation = float(torch.tensor(values, dtype=torch.float64).std())
    return float(stats.t.ppf(0.975, count - 1)) * deviation * math.sqrt(1 / count + shared / (1 - shared))


@REPRESENTATION_PROTOCOLS.register("fewshot")
@dataclass(frozen=True)
class FewShot(RepresentationProtocol):
    """A linear classifier on few labelled images; counts above the size of the smallest class are left out."""

    counts: tuple[int, ...] = COUNTS
    """Labelled images per class."""
    draws: int = DRAWS
    """Number of random choices of these images."""

    metrics: ClassVar = {
        "fewshot{count}_accuracy": Description(
            "{count} per class",
            "Mean test accuracy of linear classifiers that saw {count} labelled images of each class.",
            "share",
            "higher",
        )
    }

    def measure(self, subject: Representation) -> Iterator[Metric]:
        """The mean accuracy for each count, with its confidence interval and the single draws in the details."""
        smallest = int(torch.bincount(subject.train.labels)[subject.train.labels.unique()].min())
        counts = [count for count in self.counts if count <= smallest]
        if not counts:
            raise NotMeasured(
                f"few-shot: the smallest class has {smallest} training images, fewer than {min(self.counts)}"
            )
        for result in few_shot(subject.train, subject.test, counts=counts, draws=self.draws, seed=subject.seed):
            protocol = f"lbfgs {subject.pool}, {cut_in_words(subject.transform)}, {self.draws} draws"
            known = math.isfinite(result.interval)
            protocol += f", ± {100 * result.interval:.2f} (95 %)" if known else ""
            interval = result.interval if known else None
            details = {"per_class": result.per_class, "interval": interval, "draws": list(result.draws)}
            yield self.metric(f"fewshot{result.per_class}_accuracy", result.mean, protocol, **details)
