"""`mage pretrain`: tokens -> MAGE."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import mage
from mage.cli.options import RecipeOptions, check_parent, counting, emit, note, skipped_sentence
from mage.cli.tokenize import follow_tokenizer
from mage.data.token_cache import TokenCache, is_cache
from mage.precision import resolve, resolve_device
from mage.recipes import runs
from mage.recipes.inputs import open_data
from mage.recipes.rivals import pretrain_on_pixels
from mage.training.run import TrainResult


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """Pre-train MAGE. --data may also be a token cache; otherwise one is made in OUT/tokens, unless --online."""

    tokenizer: Path | None = None
    """folder of a tokenizer or of a whole model; none for a cache of other tokens, by `mage tokenize --array`"""
    out: Path
    """run folder: recipe.yaml, metrics.jsonl, checkpoints/, samples/, model/"""
    resume: bool = False
    """go on with the run in --out"""
    online: bool = False
    """encode images on the fly instead of reading a cache"""
    workers: int = 0
    """processes that read and augment images, with --online"""
    validation: Path | None = None
    """token cache to watch training on, where there is no tokenizer"""
    init_from: Path | None = None
    """model to start from instead of random weights, as far as it fits: domain adaptation"""


def run(options: Options) -> None:
    """Pre-train and say how well masked tokens are predicted."""
    check_parent(options.out)
    method = options.read_recipe().method
    if method != "mage":
        _run_on_pixels(options, method)
        return
    if options.tokenizer is None:
        _run_on_tokens(options)
        return
    if options.validation is not None:
        raise ValueError("--validation goes without --tokenizer: with one, the data's test images are used")
    tokenizer = runs.load_tokenizer(options.tokenizer, precision=options.precision, device=options.device)
    cache = None
    if options.data is not None and is_cache(options.data):
        cache = TokenCache(options.data)
        cache.check_tokenizer(tokenizer.tokenizer)
        recipe = follow_tokenizer(replace(options, data=cache.key.data.rsplit(" ", 2)[0]), tokenizer.recipe)
    else:
        recipe = follow_tokenizer(options, tokenizer.recipe)
    if cache is None and not options.online:
        size = len(open_data(recipe.data.name, "train", recipe, options.data_root))
        note(options, f"token cache: {options.out / 'tokens'}")
        with counting(size, "image", options) as done:
            cache = runs.tokenize(
                recipe, tokenizer, options.out / "tokens", data_root=options.data_root, on_images=done
            )
    note(options, f"precision {resolve(options.precision, resolve_device(options.device))}, recipe {recipe.name}")
    result = runs.pretrain(
        recipe,
        tokenizer,
        options.out,
        cache=cache,
        data_root=options.data_root,
        init_from=mage.load(options.init_from, device="cpu") if options.init_from is not None else None,
        resume=options.resume,
        precision=options.precision,
        device=options.device,
        progress=not options.json,
        workers=options.workers,
    )
    _report(options, result)


def _run_on_pixels(options: Options, method: str) -> None:
    if options.tokenizer is not None or options.init_from is not None or options.validation is not None:
        raise ValueError(f"{method} sees pixels: it takes no --tokenizer, --init-from or --validation")
    recipe = options.read_recipe()
    note(options, f"precision {resolve(options.precision, resolve_device(options.device))}, recipe {recipe.name}")
    result = pretrain_on_pixels(
        recipe,
        options.out,
        data_root=options.data_root,
        resume=options.resume,
        precision=options.precision,
        device=options.device,
        progress=not options.json,
        workers=options.workers,
    )
    _report(options, result)


def _run_on_tokens(options: Options) -> None:
    if options.data is None or not is_cache(options.data):
        raise ValueError("give --tokenizer, or as --data a cache of tokens made by `mage tokenize --array`")
    cache = TokenCache(options.data)
    if cache.key.tokenizer != "none":
        raise ValueError(f"{options.data} holds the tokens of images: give the --tokenizer that made them")
    validation = TokenCache(options.validation) if options.validation is not None else None
    recipe = replace(options, data=None).read_recipe()
    result = runs.pretrain_on_tokens(
        recipe,
        cache,
        options.out,
        validation=validation,
        resume=options.resume,
        precision=options.precision,
        device=options.device,
        progress=not options.json,
    )
    _report(options, result)


def _report(options: Options, result: TrainResult) -> None:
    loss = f"; held-out loss {result.metrics['valid/loss']:.3f}" if "valid/loss" in result.metrics else ""
    emit(
        options,
        {"out": str(options.out), **asdict(result)},
        f"{options.out}: {result.steps} steps in {result.seconds:.0f} s{loss}{skipped_sentence(result.skipped)}",
    )
