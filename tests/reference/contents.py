"""The content of checkpoints, for comparisons to the last bit: files may differ in how a pickle refers to strings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mage.training.checkpoint import read_checkpoint


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """The numbers, words and tensors of a nested value, by place."""
    if isinstance(value, Mapping):
        return {place: part for key, more in value.items() for place, part in flat(more, f"{name}.{key}").items()}
    if isinstance(value, list | tuple):
        return {place: part for at, more in enumerate(value) for place, part in flat(more, f"{name}[{at}]").items()}
    return {name: value}


def same(first: Any, second: Any) -> bool:
    """Whether two nested values are equal in every field, in the same order."""
    first, second = flat(first), flat(second)
    return list(first) == list(second) and all(_equal(value, second[name]) for name, value in first.items())


def same_checkpoint(first: Path, second: Path) -> bool:
    """Whether two checkpoints are equal in every field."""
    return same(read_checkpoint(first), read_checkpoint(second))


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return type(first) is type(second) and bool(first == second)
