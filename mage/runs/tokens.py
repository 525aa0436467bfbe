"""Encode a data set once, into a token cache."""

from collections.abc import Callable

from mage import distributed
from mage.data.token_cache import TokenCache, write_cache
from mage.pipeline import Mage
from mage.recipes.schema import Recipe
from mage.runs.inputs import open_data, training_data
from mage.runs.launch import Launch


def tokenize(
    recipe: Recipe,
    launch: Launch,
    tokenizer: Mage,
    *,
    split: str = "train",
    on_images: Callable[[int], None] | None = None,
) -> TokenCache:
    """Write the token cache that the recipe describes into the launch's folder; existing complete shards are kept.

    split: "train" without the images that are held out for validation, or "test". With several processes the first one
    encodes, and all open the result.
    """
    if split == "train":
        dataset = training_data(recipe, launch.data_root).train
    else:
        dataset = open_data(recipe.data.name, split, recipe, launch.data_root)

    def write() -> None:
        write_cache(
            launch.out,
            dataset,
            tokenizer.require_tokenizer(),
            recipe.data.transform,
            split=split,
            source=recipe.data.name,
            views=recipe.data.views,
            seed=recipe.seed,
            encode=tokenizer.encode,
            workers=launch.workers,
            on_images=on_images,
        )

    launch.start()
    with launch.numerics():
        distributed.by_first_process(write)
    return TokenCache(launch.out, read=False)  # all of it was written or read just now
