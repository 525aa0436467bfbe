"""`mage tokenize`: images -> a token cache."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mage import runs
from mage.cli.asked import choice_of, launch_of
from mage.cli.options.tokenize import Options
from mage.cli.say import check_parent, counting, emit, skipped_sentence
from mage.data.own_tokens import write_tokens
from mage.recipes import resolve
from mage.runs.inputs import open_data, training_data

PARALLEL = True


def run(options: Options) -> None:
    """Write the cache and count it."""
    check_parent(options.out)
    if (options.tokenizer is None) == (options.array is None):
        raise ValueError("give either --tokenizer or --array")
    if options.tokenizer is None:
        _take_array(options)
        return
    tokenizer = runs.load_tokenizer(options.tokenizer, precision=options.precision, device=options.device)
    recipe, launch = resolve(choice_of(options), base=tokenizer.recipe), launch_of(options)
    if options.views is not None:
        recipe = replace(recipe, data=replace(recipe.data, views=options.views))
    if options.split == "train":
        size = len(training_data(recipe, options.data_root).train)
    else:
        size = len(open_data(recipe.data.name, options.split, recipe, options.data_root))
    with counting(size, "image", options) as done:
        cache = runs.tokenize(recipe, launch, tokenizer, split=options.split, on_images=done)
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


def _take_array(options: Options) -> None:
    assert options.array is not None
    tokens, labels = _read_integers(options.array), None
    if options.labels is not None:
        labels = _read_integers(options.labels)
    largest = int(tokens.max()) + 1 if tokens.size else 0
    cache = write_tokens(
        options.out, tokens, num_codes=options.num_codes or largest, labels=labels, name=options.array.stem
    )
    emit(
        options,
        {"out": str(options.out), "rows": len(cache), "grid": cache.grid, "num_codes": cache.num_codes},
        f"{options.out}: {len(cache):,} x {cache.grid[0]} x {cache.grid[1]} tokens below {cache.num_codes}",
    )


def _read_integers(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not readable as .npy ({type(error).__name__})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
        raise ValueError(f"{path} holds no integers")
    return array
