"""Options of `mage transfer`."""

from dataclasses import dataclass
from typing import Literal

from mage.cli.options.base import Common
from mage.cli.options.bounds import Seed
from mage.cli.options.choices import FeaturePool
from mage.cli.options.places import Images, Model


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Linear probe and k-NN of each model on each data set; several models, such as before and after an adaptation."""

    model: tuple[Model, ...]
    """models or run folders"""
    data: tuple[Images, ...]
    """data sets by name, or folders with one folder per class"""
    data_root: str | None = None
    """folder with the files of named data sets"""
    pool: FeaturePool = "mean"
    """features: mean over the tokens, the class token, both concatenated, or both of each of the last four blocks"""
    protocol: Literal["lars", "lbfgs", "ridge"] = "lbfgs"
    """of the linear probe, as in `mage probe`"""
    seed: Seed = 0
    """seed of everything random"""
