"""Pre-train with any method: on a token cache, on images tokenized on the fly, on the user's tokens, on pixels."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mage import distributed, images, settings
from mage.data.cache_index import CacheKey
from mage.data.datasets import DATASETS, ImageDataset, content_of
from mage.data.storage import is_url
from mage.data.token_cache import TokenCache, part_of
from mage.data.transforms import describe
from mage.pipeline import Mage
from mage.recipes.schema import Recipe
from mage.runs.conditions import from_cache, from_labels, picture
from mage.runs.initial_weights import start_from
from mage.runs.inputs import cached_batches, decoding_device, image_batches, tell_data, training_data, validation_images
from mage.runs.launch import Launch, announce, run_task
from mage.runs.online import watch_images, watch_tokens
from mage.runs.tokenizer import notes_of_tokenizer
from mage.tokenizers import Tokenizer
from mage.training.method import MethodInputs
from mage.training.pretrain import Pretraining
from mage.training.run import TrainResult
from mage.training.task import Task

logger = logging.getLogger(__name__)


def pretrain(
    recipe: Recipe,
    launch: Launch,
    tokenizer: Mage | None = None,
    *,
    cache: TokenCache | None = None,
    validation: TokenCache | None = None,
    init_from: Mage | None = None,
) -> TrainResult:
    """Pre-train with the recipe's method; the run folder then holds the model.

    tokenizer: for methods that read tokens of images; without `cache`, images are tokenized on the fly. A cache without
    tokenizer holds other tokens, such as text or actions; `validation` is a cache of held-out ones.
    init_from: a model whose weights initialise the network, as far as they fit (domain adaptation).
    """
    launch.check_out()
    launch.start()
    if recipe.method.reads == "images":
        if tokenizer is not None or cache is not None or validation is not None or init_from is not None:
            raise ValueError(f"{recipe.method.name} reads pixels: leave out tokenizer, token cache and initial model")
        return _on_pixels(recipe, launch)
    if tokenizer is None:
        if cache is None:
            raise ValueError(f"{recipe.method.name} reads tokens: give a tokenizer, or a cache of tokens")
        return _on_tokens(recipe, launch, cache, validation, init_from)
    if validation is not None:
        raise ValueError("leave out the validation cache: with a tokenizer, the data's held-out images are used")
    return _on_images(recipe, launch, tokenizer, cache, init_from)


def _on_images(
    recipe: Recipe, launch: Launch, tokenizer: Mage, cache: TokenCache | None, init_from: Mage | None
) -> TrainResult:
    key: CacheKey | None = None
    tokenizer.to(launch.start())
    words = tokenizer.require_tokenizer()
    optim, method = recipe.pretraining, recipe.method
    try:
        data = training_data(recipe, launch.data_root)
    except ValueError as error:
        name = recipe.data.name
        if cache is None or name in DATASETS or is_url(name) or Path(name).exists():
            raise
        raise ValueError(f"{error}; where the images of the tokens are now is said by --set data.name=FOLDER") from None
    tell_data(data, recipe.data.name, recipe.image_size)
    if cache is not None:
        cache.check_tokenizer(words)
        recipe = _of_cache(recipe, cache)
        _compare(cache, data.train)
        key = cache.key
        conditions, cache = from_cache(
            method.class_conditions, cache, init_from, launch, seed=recipe.seed, tokenizer=tokenizer
        )
        if method.class_conditions.source == "clusters" and not launch.resume and distributed.is_first():
            images.save_png(launch.out / "figures" / "clusters.png", picture(tokenizer, cache))
        num_images = len(cache)
        source = cached_batches(cache, optim, recipe.seed, pairs=method.pairs, device=launch.start())
        content = cache.key.data
    else:
        num_images, content = len(data.train), content_of(data.train)
        conditions = from_labels(method.class_conditions, data.train.labels, data.train.class_names)
        source = image_batches(
            data.train,
            recipe.data.transform,
            optim,
            recipe.seed,
            workers=launch.workers,
            pairs=method.pairs,
            device=decoding_device(recipe, launch.start()),
        )
    if method.class_conditions.source == "none" and recipe.sampling.guidance:  # of a model with classes, perhaps
        recipe = replace(recipe, sampling=replace(recipe.sampling, guidance=0.0))
    held = tokenizer.encode(images.to_float(validation_images(recipe, data.validation))).cpu().clone()
    inputs = MethodInputs(
        model=recipe.model,
        source=source,
        num_images=num_images,
        optim=optim,
        recipe=settings.to_dict(recipe),
        seed=recipe.seed,
        validation=held,
        watch=watch_tokens(recipe, tokenizer, data) if recipe.data.online_images else None,
        grid=tuple(words.grid),
        num_codes=words.num_codes,
        tokenizer=words,
        sampling=recipe.sampling,
        notes=notes_of_tokenizer(tokenizer) | conditions.notes(),
        class_names=conditions.names,
        precision=tokenizer.precision,
    )
    task = method.build(inputs)
    _begin_at(task, init_from, words, recipe, launch)
    learned = _learned(recipe, content, key) | {"tokenizer": words.fingerprint()}
    announce("pre-training", recipe, launch, optim, num_images, words.grid)
    return run_task(task, recipe, launch, learned, data.train)


def _of_cache(recipe: Recipe, cache: TokenCache) -> Recipe:
    """The recipe with the views that a cache holds; a warning if they were cut from the images in another way."""
    now = describe(recipe.data.transform)
    if cache.key.transform != now:
        logger.warning(
            "%s holds tokens of images that were cut by %r; data.transform, %r, has no effect on them",
            cache.folder, cache.key.transform, now,
        )  # fmt: skip
    return replace(recipe, data=replace(recipe.data, views=cache.key.views))


def _compare(cache: TokenCache, train: ImageDataset) -> None:
    """Warn if the tokens are of other images than those of training now, of which others are held out."""
    if cache.key.data != part_of(train, "train"):
        logger.warning(
            "%s holds tokens of other images than data.name, data.validation and seed give now (%s; now %s): loss and "
            "accuracy on held-out images may be of images that are trained on; tokenize again into another folder",
            cache.folder, cache.key.data, part_of(train, "train"),
        )  # fmt: skip


def _begin_at(task: Task, init_from: Mage | None, tokenizer: Tokenizer | None, recipe: Recipe, launch: Launch) -> None:
    """Initialise a task's network with another model's weights, except in a resumed run.

    Raises ValueError for a method that cannot, and for an encoder that would stay as it is with random weights.
    """
    if launch.resume:
        return
    if init_from is None:
        return check_encoder(recipe)
    if not isinstance(task, Pretraining):
        raise ValueError(f"the method {recipe.method.name} cannot start from another model: leave out --init-from")
    new = [name for name in start_from(task.network, init_from, tokenizer) if name.startswith("encoder.")]
    if new and recipe.method.class_conditions.freeze_encoder:
        raise ValueError(
            f"method.conditions.freeze_encoder keeps the encoder as it is, but the model to start from has no {new[0]} "
            "that fits: its tokenizer or its sizes are others"
        )


def check_encoder(recipe: Recipe) -> None:
    """Raise ValueError if an encoder of random weights would stay as it is."""
    if recipe.method.class_conditions.freeze_encoder:
        raise ValueError(
            "method.conditions.freeze_encoder keeps the encoder as it is: give --init-from, a model that is trained"
        )


def _on_tokens(
    recipe: Recipe, launch: Launch, cache: TokenCache, validation: TokenCache | None, init_from: Mage | None
) -> TrainResult:
    held: Tensor | None = None
    if validation is not None:
        if (validation.grid, validation.num_codes) != (cache.grid, cache.num_codes):
            raise ValueError(
                f"{validation.folder} holds tokens below {validation.num_codes} on a grid of {validation.grid}, "
                f"{cache.folder} below {cache.num_codes} on {cache.grid}: both must agree"
            )
        count = min(len(validation), recipe.data.validation.images)
        chosen = np.arange(count) * len(validation) // count  # tokens may be sorted by class, too
        held = validation.tokens(chosen, np.zeros_like(chosen))
    recipe = replace(recipe, data=replace(recipe.data, views=cache.key.views))
    content = cache.content  # of the tokens: what they are of is not known
    conditions, cache = from_cache(recipe.method.class_conditions, cache, init_from, launch, seed=recipe.seed)
    source = cached_batches(cache, recipe.pretraining, recipe.seed, pairs=recipe.method.pairs, device=launch.start())
    inputs = MethodInputs(
        model=recipe.model,
        source=source,
        num_images=len(cache),
        optim=recipe.pretraining,
        recipe=settings.to_dict(recipe),
        seed=recipe.seed,
        validation=held,
        grid=tuple(cache.grid),
        num_codes=cache.num_codes,
        sampling=recipe.sampling,
        notes=conditions.notes(),
        class_names=conditions.names,
    )
    task = recipe.method.build(inputs)
    _begin_at(task, init_from, None, recipe, launch)
    announce("pre-training", recipe, launch, recipe.pretraining, len(cache), cache.grid)
    learned = _learned(recipe, cache.key.data, cache.key)
    learned |= {"tokens": content} if content else {}
    return run_task(task, recipe, launch, learned, None)


def _on_pixels(recipe: Recipe, launch: Launch) -> TrainResult:
    data = training_data(recipe, launch.data_root)
    tell_data(data, recipe.data.name, recipe.image_size)
    optim = recipe.pretraining
    source = image_batches(
        data.train,
        recipe.data.transform,
        optim,
        recipe.seed,
        workers=launch.workers,
        pairs=recipe.method.pairs,
        device=decoding_device(recipe, launch.start()),
    )
    inputs = MethodInputs(
        model=recipe.model,
        source=source,
        num_images=len(data.train),
        optim=optim,
        recipe=settings.to_dict(recipe),
        seed=recipe.seed,
        validation=validation_images(recipe, data.validation),
        watch=watch_images(recipe, data) if recipe.data.online_images else None,
        image_size=recipe.image_size,
        channels=recipe.channels,
    )
    task: Task = recipe.method.build(inputs)
    announce("pre-training", recipe, launch, optim, len(data.train))
    return run_task(task, recipe, launch, _learned(recipe, content_of(data.train)), data.train)


def _learned(recipe: Recipe, content: str, key: CacheKey | None = None) -> dict[str, Any]:
    """The settings that determine what is learned. key: of the token cache that is read."""
    values = settings.to_dict(recipe)
    kept = {name: values[name] for name in ("model", "method", "pretraining", "seed")}
    data = {name: values["data"][name] for name in ("name", "transform", "views")}
    cached = {} if key is None else {"cache": {"transform": key.transform, "views": key.views, "seed": key.seed}}
    return kept | {"data": data, "content": content, **cached}
