"""Classes of the images to generate: by number, by name, or drawn with the frequencies of the training set.

Letters: n images, k classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mage import rng

NO_CLASS, WITHOUT = -1, "none"
"""The class of an image without one, as a number and as a word."""

Classes = int | str | Sequence[int | str] | Tensor | np.ndarray | np.generic | None
"""One class for all images or one per image, by number or name; None: the model's default."""


def class_numbers(classes: Classes, n: int, num_classes: int, names: Sequence[str]) -> Int[Tensor, " n"]:
    """One class number per image. Raises ValueError for an unknown class, or unless there are 1 or `n` classes."""
    if not num_classes:
        raise ValueError("this model was trained without classes; docs/generation.md shows how to add them")
    labels = listed(classes)
    labels = labels * n if len(labels) == 1 else labels
    if len(labels) != n:
        raise ValueError(f"{len(labels)} classes for {n} images: give one class, or one per image")
    return torch.tensor([_number(label, num_classes, names) for label in labels])


def listed(classes: Classes) -> list[Any]:
    """The classes as a list."""
    if isinstance(classes, Tensor | np.ndarray | np.generic):
        labels: list[Any] = (classes if isinstance(classes, Tensor) else np.asarray(classes)).flatten().tolist()
        return labels
    return [classes] if isinstance(classes, int | str) else list(classes or [])


def _number(label: int | float | str, num_classes: int, names: Sequence[str]) -> int:
    if isinstance(label, str) and label in names:
        return list(names).index(label)
    if isinstance(label, str) and label == WITHOUT:
        return NO_CLASS
    try:
        number = int(label)
        if not isinstance(label, str) and number != label:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ValueError(f"there is no class {label!r}; classes are {shown or f'0 to {num_classes - 1}'}") from None
    if not NO_CLASS <= number < num_classes:
        raise ValueError(f"there is no class {number}; classes are 0 to {num_classes - 1}, and -1 for none")
    return number


def drawn_classes(shares: Sequence[float], seed: int, indices: Sequence[int]) -> Int[Tensor, " n"]:
    """A class for each image, drawn with probabilities `shares`; image k of a seed always gets the same class."""
    ends = torch.tensor(shares, dtype=torch.float64).cumsum(0)
    uniform = [torch.rand((), generator=rng.generator(seed, "class", index), dtype=torch.float64) for index in indices]
    return torch.searchsorted(ends / ends[-1], torch.stack(uniform), right=True).clamp(max=len(shares) - 1)
