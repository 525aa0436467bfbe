"""The built-in recipes by name."""

from collections.abc import Callable

from mage.recipes.baselines import (
    cifar10_crops,
    cifar10_ijepa,
    cifar10_mae,
    cifar10_mage_c,
    cifar10_maskgit,
    cifar10_simclr,
)
from mage.recipes.classes import cifar10_classes, cifar10_clusters, cifar10_labels
from mage.recipes.imagenet import imagenet_base, imagenet_large, imagenet_taming
from mage.recipes.schema import Recipe
from mage.recipes.small import cifar10, mnist5k, photos64, smoke, tokens

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe().name: recipe
    for recipe in (
        mnist5k,
        cifar10,
        cifar10_crops,
        cifar10_mage_c,
        cifar10_maskgit,
        cifar10_mae,
        cifar10_simclr,
        cifar10_ijepa,
        cifar10_classes,
        cifar10_labels,
        cifar10_clusters,
        photos64,
        tokens,
        imagenet_base,
        imagenet_large,
        imagenet_taming,
        smoke,
    )
}
"""Name -> function that returns the recipe."""
