"""`mage tokenize`: images -> a token cache."""

from dataclasses import replace

from mage import runs
from mage.array_files import open_integers
from mage.cli.arguments import choice_of, launch_of
from mage.cli.console import counting, emit, skipped_sentence
from mage.cli.options.tokenize import Options
from mage.data.own_tokens import write_tokens
from mage.nn.grids import written
from mage.recipes import resolve
from mage.runs.inputs import open_data, training_data

PARALLEL = True


def run(options: Options) -> None:
    """Write the cache and print its size."""
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
    skipped = list(cache.index.skipped)
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
        f"x {written(cache.grid)} tokens{skipped_sentence(skipped)}",
    )


def _take_array(options: Options) -> None:
    assert options.array is not None
    tokens = open_integers(options.array)
    cache = write_tokens(
        options.out,
        tokens,
        num_codes=options.num_codes or int(tokens.max()) + 1,
        views=options.array_views,
        labels=None if options.labels is None else open_integers(options.labels),
        name=options.array.stem,
    )
    views = f"{cache.key.views} views x " if options.array_views else ""
    emit(
        options,
        {
            "out": str(options.out),
            "rows": len(cache),
            "views": cache.key.views,
            "grid": cache.grid,
            "num_codes": cache.num_codes,
        },
        f"{options.out}: {len(cache):,} x {views}{written(cache.grid)} tokens below {cache.num_codes}",
    )
