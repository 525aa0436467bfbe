"""Options of `mage knn`."""

from dataclasses import dataclass

from mage.cli.options.base import FeatureOptions
from mage.cli.options.bounds import Count
from mage.cli.options.choices import NEIGHBOURS


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """Classify test images by their nearest training images."""

    neighbours: tuple[Count, ...] = NEIGHBOURS
    """numbers of neighbours to try; the best is chosen on held-out training images"""
    temperature: float = 0.07
    """the weight of each neighbour is exp(similarity / temperature)"""
