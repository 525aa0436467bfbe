"""Options of `mage tokenize`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mage.cli.options.base import RunOptions
from mage.cli.options.bounds import Count
from mage.cli.options.places import Model


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Encode every image of a data set once; or make a cache from your own integers."""

    tokenizer: Model | None = None
    """folder of a tokenizer or of a whole model"""
    array: Path | None = None
    """instead: a .npy of integers: sequences (n, length), images (n, h, w) or clips (n, t, h, w)"""
    array_views: bool = False
    """with --array: dimension 1 counts views of the same sample, (n, views, length) and so on"""
    num_codes: Count | None = None
    """with --array: integers are 0 to this number minus 1; default: the largest integer plus 1"""
    labels: Path | None = None
    """with --array: a .npy of one class number per row"""
    views: Count | None = None
    """augmented views per image; default: the recipe's"""
    split: Literal["train", "test"] = "train"
    """which part of the data set"""
