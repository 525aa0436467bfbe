"""Options of `mage tokenize`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mage.cli.options.base import RunOptions
from mage.cli.options.bounds import Count


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Encode every image of a data set once; or take integers that were made elsewhere."""

    tokenizer: Path | None = None
    """folder of a tokenizer or of a whole model"""
    array: Path | None = None
    """instead: a .npy of integers (n, length), (n, h, w) or (n, views, h, w)"""
    num_codes: Count | None = None
    """with --array: integers run from 0 to this number less 1; default: the largest there"""
    labels: Path | None = None
    """with --array: a .npy of one class number per row"""
    views: Count | None = None
    """augmented views per image; default: the recipe's"""
    split: Literal["train", "test"] = "train"
    """which part of the data set"""
