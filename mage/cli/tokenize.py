"""`mage tokenize`: images -> a token cache."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mage.cli.options import RecipeOptions, check_parent, counting, emit, skipped_sentence
from mage.recipes import runs
from mage.recipes.schema import Recipe
from mage.settings import from_dict


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """Encode every image of a data set once."""

    tokenizer: Path
    """folder of a tokenizer or of a whole model"""
    out: Path
    """folder of the cache; an unfinished one is completed"""
    views: int | None = None
    """augmented views per image; default: the recipe's"""
    split: Literal["train", "test"] = "train"
    """which part of the data set"""


def run(options: Options) -> None:
    """Write the cache and count it."""
    check_parent(options.out)
    tokenizer = runs.load_tokenizer(options.tokenizer, precision=options.precision, device=options.device)
    recipe = follow_tokenizer(options, tokenizer.recipe)
    if options.views is not None:
        recipe = replace(recipe, data=replace(recipe.data, views=options.views))
    size = len(runs.open_data(recipe.data.name, options.split, recipe, options.data_root))
    with counting(size, "image", options) as done:
        cache = runs.tokenize(
            recipe, tokenizer, options.out, split=options.split, data_root=options.data_root, on_images=done
        )
    skipped = cache.index["skipped"]
    result = {
        "out": str(options.out),
        "images": len(cache),
        "views": cache.key.views,
        "grid": cache.grid,
        "skipped": skipped,
    }
    emit(
        options,
        result,
        f"{options.out}: {len(cache):,} images x {cache.key.views} views "
        f"x {cache.grid[0]} x {cache.grid[1]} tokens{skipped_sentence(skipped)}",
    )


def follow_tokenizer(options: RecipeOptions, trained: dict[str, object]) -> Recipe:
    """Without --recipe and --config, the recipe that the tokenizer was trained by."""
    if options.recipe is None and options.config is None and "pretraining" in trained:
        from mage.settings import override

        changes = list(options.set)
        changes += [f"data.name='{options.data}'"] if options.data is not None else []
        changes += [f"seed={options.seed}"] if options.seed is not None else []
        return override(from_dict(Recipe, trained), changes)
    return options.read_recipe()
