"""Answers of a classifier, class by class: the confusion matrix, accuracies and their 95 % intervals.

Letters: n images, k classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

NORMAL_QUANTILE = 1.959964
"""97.5 % quantile of the normal distribution: an interval of this many standard errors on both sides holds 95 %."""
MOST_CLASSES = 100
"""Largest number of classes whose whole matrix is stored; beyond, the most frequent confusions alone."""
MOST_CONFUSIONS = 20
"""Number of the most frequent confusions that are stored."""


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share of which `right` of `count` were observed (Wilson, 1927).

    It stays inside [0, 1] and holds for few images and for shares near 0 and 1. Raises ValueError for no images.
    """
    if not 0 <= right <= count or not count:
        raise ValueError(f"an interval needs at least one image, and 0 to all of them right, not {right} of {count}")
    z2, share = NORMAL_QUANTILE**2, right / count
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = NORMAL_QUANTILE / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low = 0.0 if right == 0 else centre - reach  # both ends are exact there, up to rounding
    return low, 1.0 if right == count else centre + reach


def with_interval(right: int, count: int) -> str:
    """A share in per cent with its interval, such as "53.3 % (36.1 to 69.8 %)"."""
    low, high = wilson_interval(right, count)
    return f"{right / count:.1%} ({100 * low:.1f} to {high:.1%})".replace("%", " %")


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often images of each class were taken for each class."""

    pairs: Int[Tensor, "p 3"]
    """True class, predicted class and number of images of every pair that occurs, in the order of the classes."""
    class_names: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        """Whether counts and names are the same."""
        if not isinstance(other, Confusion):
            return NotImplemented
        return self.class_names == other.class_names and torch.equal(self.pairs, other.pairs)

    __hash__ = None  # type: ignore[assignment]  # as of other classes that compare their values

    @classmethod
    def of(cls, predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], class_names: Sequence[str]) -> "Confusion":
        """Count predictions. Classes without a name are called by their number; raises ValueError without images."""
        if not len(labels):
            raise ValueError("there are no images to count the answers for")
        pairs, counts = torch.stack([labels, predicted], dim=1).unique(dim=0, return_counts=True)
        numbers = tuple(str(number) for number in range(int(pairs.max()) + 1))
        return cls(torch.cat([pairs, counts[:, None]], dim=1), numbers).named(class_names)

    def named(self, class_names: Sequence[str]) -> "Confusion":
        """The same answers with the classes' names; classes without one are called by their number."""
        size = max(len(class_names), len(self.class_names))
        names = tuple(class_names) + tuple(str(number) for number in range(len(class_names), size))
        return Confusion(self.pairs, names)

    @property
    def counts(self) -> Int[Tensor, "k k"]:
        """The whole matrix, for few classes. Rows: true classes; columns: predicted ones."""
        matrix = self.pairs.new_zeros(len(self.class_names), len(self.class_names))
        matrix[self.pairs[:, 0], self.pairs[:, 1]] = self.pairs[:, 2]
        return matrix

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.pairs[:, 2].sum())

    @property
    def right(self) -> int:
        """Number of images whose class was predicted."""
        return int(self.pairs[self.pairs[:, 0] == self.pairs[:, 1], 2].sum())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return wilson_interval(self.right, self.images)

    def confusions(self) -> list[tuple[int, int, int]]:
        """(true class, predicted class, images), the most frequent first; at most MOST_CONFUSIONS."""
        wrong = self.pairs[self.pairs[:, 0] != self.pairs[:, 1]]
        order = wrong[:, 2].argsort(descending=True, stable=True)[:MOST_CONFUSIONS]
        return [(true, taken, images) for true, taken, images in wrong[order].tolist()]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file: interval, the accuracy of each class with its interval, and the confusions."""
        names, per_class = self.class_names, {}
        totals, rights = [0] * len(names), [0] * len(names)
        for true, taken, images in self.pairs.tolist():
            totals[true] += images
            rights[true] += images if true == taken else 0
        for name, total, right in zip(names, totals, rights, strict=True):
            if total:
                low, high = wilson_interval(right, total)
                per_class[name] = {"accuracy": right / total, "low": low, "high": high, "images": total}
        low, high = self.interval
        values: dict[str, Any] = {
            "interval": [low, high],
            "right": self.right,
            "images": self.images,
            "per_class": per_class,
            "confusions": [[names[true], names[taken], images] for true, taken, images in self.confusions()],
        }
        if len(names) <= MOST_CLASSES:
            values |= {"class_names": list(names), "confusion": self.counts.tolist()}
        return values

    def sentence(self) -> str:
        """The classes with the lowest accuracy and the most frequent confusion, for the console; "" if all is right."""
        wrong = self.confusions()
        if not wrong:
            return ""
        per_class = self.as_dict()["per_class"]
        lowest = sorted(per_class, key=lambda name: per_class[name]["accuracy"])[:3]
        worst = ", ".join(f"{name} {per_class[name]['accuracy']:.0%}".replace("%", " %") for name in lowest)
        true, taken, images = wrong[0]
        names = self.class_names
        return f"lowest by class: {worst}; most often {names[true]} is taken for {names[taken]} ({images:,} images)"
