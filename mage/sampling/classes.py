"""Which class each image is to have: by number, by name, or drawn as often as the training images had it.

Letters: n images, k classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mage import rng

NO_CLASS = -1
"""The class of an image without one."""

Classes = int | str | Sequence[int | str] | Tensor | np.ndarray | np.generic | None
"""One class for all images or one each, by number or name; None: the model decides."""


def class_numbers(classes: Classes, n: int, num_classes: int, names: Sequence[str]) -> Int[Tensor, " n"]:
    """One class number per image. Raises ValueError for an unknown class or another number of them than `n`."""
    if not num_classes:
        raise ValueError("this model was trained without classes; see the guide on conditions for how to add them")
    given = listed(classes)
    given = given * n if len(given) == 1 else given
    if len(given) != n:
        raise ValueError(f"{len(given)} classes for {n} images: give one, or one each")
    return torch.tensor([_number(one, num_classes, names) for one in given])


def listed(classes: Classes) -> list[Any]:
    """The classes as they were given, one after the other."""
    if isinstance(classes, Tensor | np.ndarray | np.generic):
        found: list[Any] = torch.as_tensor(classes).flatten().tolist()
        return found
    return [classes] if isinstance(classes, int | str) else list(classes or [])


def _number(one: int | str, num_classes: int, names: Sequence[str]) -> int:
    if isinstance(one, str) and one in names:
        return list(names).index(one)
    try:
        number = int(one)
    except ValueError:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ValueError(f"there is no class {one!r}; classes are {shown or f'0 to {num_classes - 1}'}") from None
    if not NO_CLASS <= number < num_classes:
        raise ValueError(f"there is no class {number}; classes are 0 to {num_classes - 1}, and -1 for none")
    return number


def drawn_classes(shares: Sequence[float], seed: int, indices: Sequence[int]) -> Int[Tensor, " n"]:
    """A class for each image, drawn by how often each occurs; image k of a seed always gets the same one."""
    ends = torch.tensor(shares, dtype=torch.float64).cumsum(0)
    uniform = [torch.rand((), generator=rng.generator(seed, "class", index), dtype=torch.float64) for index in indices]
    return torch.searchsorted(ends / ends[-1], torch.stack(uniform), right=True).clamp(max=len(shares) - 1)
