"""Recipes: everything a training run needs, as one typed tree."""

from mage.recipes.baselines import cifar10_crops, cifar10_mae, cifar10_mage_c, cifar10_maskgit, cifar10_simclr
from mage.recipes.classes import cifar10_classes, cifar10_clusters, cifar10_labels
from mage.recipes.imagenet import imagenet_base, imagenet_large, imagenet_taming
from mage.recipes.schema import Recipe as Recipe
from mage.recipes.small import cifar10, mnist5k, photos64, smoke

RECIPES = {
    recipe().name: recipe
    for recipe in (
        mnist5k,
        cifar10,
        cifar10_crops,
        cifar10_mage_c,
        cifar10_maskgit,
        cifar10_mae,
        cifar10_simclr,
        cifar10_classes,
        cifar10_labels,
        cifar10_clusters,
        photos64,
        imagenet_base,
        imagenet_large,
        imagenet_taming,
        smoke,
    )
}
"""Name -> function that gives the recipe."""


def named(name: str) -> Recipe:
    """The recipe called `name`. Raises ValueError with the names there are."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; recipes are {', '.join(RECIPES)}; your own: --config FILE.yaml")
    return RECIPES[name]()
