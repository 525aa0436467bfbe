"""Options of `mage fewshot`."""

from dataclasses import dataclass
from typing import Literal

from mage.cli.options.base import FeatureOptions
from mage.cli.options.bounds import Count
from mage.cli.options.choices import COUNTS, DRAWS


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """Train a linear classifier on a few images per class, several times; measure it on all test images."""

    counts: tuple[Count, ...] = COUNTS
    """labelled images per class"""
    draws: Count = DRAWS
    """random draws of these images; the confidence interval is computed from them"""
    protocol: Literal["lars", "lbfgs", "ridge"] = "lbfgs"
    """training of the classifier, as in `mage probe`"""
