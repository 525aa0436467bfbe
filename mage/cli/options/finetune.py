"""Options of `mage finetune`."""

from dataclasses import dataclass

from mage.cli.options.base import Repeated, TrainOptions
from mage.cli.options.places import Model


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """Train encoder and a new head on labelled images; OUT/model is then a classifier.

    Recipes: base and large are the paper's, for ViT-B and ViT-L on ImageNet; small, the default, is for small
    models and data sets.
    """

    model: Model
    """pre-trained model or run folder"""
    recipe: str | None = None
    """base, large (the paper's, for ImageNet) or small, the default"""
    set: Repeated = ()
    """override one setting, such as --set optim.epochs=5; may be repeated"""
