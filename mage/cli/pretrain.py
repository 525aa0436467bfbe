"""`mage pretrain`: tokens -> MAGE, or any other method on the same engine."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import mage
from mage import runs
from mage.cli.arguments import choice_of, launch_of
from mage.cli.console import counting, emit, note, skipped_sentence
from mage.cli.options.pretrain import Options
from mage.data.stored_tokens import open_cache
from mage.data.token_cache import TokenCache
from mage.models import MAGETransformer
from mage.recipes import Recipe, resolve
from mage.recipes.fitting import unfitted
from mage.runs.fitted import check_words, fitted_recipe
from mage.runs.inputs import training_data
from mage.runs.pretrain import check_encoder
from mage.runs.reading import reading_of
from mage.settings import name_of, override
from mage.training.run import TrainResult

PARALLEL = True


def run(options: Options) -> None:
    """Pre-train and print the held-out loss."""
    cache = None if options.data is None else open_cache(options.data)
    tokenizer = None
    if options.tokenizer is not None:
        tokenizer = runs.load_tokenizer(options.tokenizer, precision=options.precision, device=options.device)
    if cache is not None and tokenizer is None and cache.key.tokenizer != "none":
        raise ValueError(f"{options.data} holds tokens of images: give the --tokenizer that they were made with")
    recipe, launch = _recipe(options, cache, None if tokenizer is None else tokenizer.recipe), launch_of(options)
    launch.check_out()
    first = mage.load(options.init_from, device="cpu") if options.init_from is not None else None
    if first is None and not launch.resume:
        check_encoder(recipe)
    if recipe.method.reads == "tokens" and tokenizer is None and cache is None:
        raise ValueError("give --tokenizer, or as --data a cache of tokens made by `mage tokenize --array`")
    if options.minutes is not None:
        check_words(recipe, tokenizer, cache)
        train = training_data(recipe, options.data_root).train if cache is None else cache
        reading = None
        if not isinstance(train, TokenCache) and (options.online or recipe.method.reads == "images"):
            views = 2 if recipe.method.pairs else 1
            reading = reading_of(recipe, train, recipe.data.transform, launch.workers, views=views, tokenizer=tokenizer)
        if options.recipe is None and options.config is None:  # it may be that of the tokenizer's training
            recipe = unfitted(recipe)
        if first is not None:
            recipe = _as_deep(recipe, first, options.set)
        recipe = fitted_recipe(
            recipe, launch, "pretraining", len(train), options.minutes, keep_sizes=first is not None, reading=reading,
            changes=options.set,
        )  # fmt: skip
    if tokenizer is not None and cache is None and not options.online and recipe.method.reads == "tokens":
        size = len(training_data(recipe, options.data_root).train)
        note(options, f"token cache: {options.out / 'tokens'}")
        with counting(size, "image", options) as done:
            cache = runs.tokenize(recipe, replace(launch, out=options.out / "tokens"), tokenizer, on_images=done)
    result = runs.pretrain(
        recipe,
        launch,
        tokenizer,
        cache=cache,
        validation=TokenCache(options.validation) if options.validation is not None else None,
        init_from=first,
    )
    _report(options, result)


def _recipe(options: Options, cache: TokenCache | None, base: dict[str, Any] | None) -> Recipe:
    """The recipe; with a cache, its data are the images that the cache was made from, unless a setting names them."""
    choice = choice_of(options)
    if cache is None:
        return resolve(choice, base=base)
    if cache.key.tokenizer == "none":
        recipe = resolve(replace(choice, data=None), default="tokens")
        name = cache.key.data.partition(" train ")[0]  # of tokens of the user's own, which are of no data set
        return replace(recipe, data=replace(recipe.data, name=name))
    if "data.name" in map(name_of, choice.changes):
        return resolve(replace(choice, data=None), base=base)
    trained_on = (base or {}).get("data", {}).get("name")
    return resolve(replace(choice, data=cache.source or trained_on), base=base)


def _as_deep(recipe: Recipe, first: mage.Mage, changes: Sequence[str]) -> Recipe:
    """The recipe with as many blocks as the model to start from, which minutes may have fitted to other images."""
    if not isinstance(first.transformer, MAGETransformer):
        return recipe
    given, config = [name_of(change) for change in changes], first.transformer.config
    depths = {part: getattr(config, part) for part in ("depth", "decoder_depth")}
    return override(
        recipe, [f"model.{part}={blocks}" for part, blocks in depths.items() if blocks and f"model.{part}" not in given]
    )


def _report(options: Options, result: TrainResult) -> None:
    loss = f"; held-out loss {result.metrics['valid/loss']:.3f}" if "valid/loss" in result.metrics else ""
    emit(
        options,
        {"out": str(options.out), **asdict(result)},
        f"{options.out}: {result.steps} steps in {result.seconds:.0f} s{loss}{skipped_sentence(result.skipped)}",
    )
