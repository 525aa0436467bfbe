"""Options of `mage probe`."""

from dataclasses import dataclass
from typing import Literal

from mage.cli.options.base import FeatureOptions
from mage.cli.options.bounds import Count
from mage.cli.options.places import NewFolder


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """Train a linear classifier on frozen features of the training images, measure it on the test images."""

    out: NewFolder | None = None
    """keep the classifier, its results and a report in this folder, for `mage predict`"""
    protocol: Literal["lars", "lbfgs", "ridge"] = "lbfgs"
    """lars: as published, 90 epochs; lbfgs: logistic regression to convergence; ridge: least squares, in closed form"""
    epochs: Count = 90
    """epochs of the lars protocol"""
    crops: Literal["fixed", "random"] = "fixed"
    """of training images, lars protocol only. random: as published, a new crop of each image in every epoch, at the
    cost of one feature pass per epoch; fixed: the centre crop of test images, one pass"""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """smallest and largest share of the image's area in a random crop"""
    base_learning_rate: float = 0.1
    """learning rate of the lars protocol, for a batch of 256"""
