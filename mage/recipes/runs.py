"""From a recipe to results: train the tokenizer, cache tokens, pre-train MAGE. Front ends parse, call and print."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mage import atomic, rng, settings
from mage.checkpoints import io
from mage.data.token_cache import TokenCache, write_cache
from mage.images import save_png
from mage.models import MAGE
from mage.pipeline import Mage
from mage.precision import resolve, resolve_device
from mage.recipes.adapt import start_from
from mage.recipes.conditions import Conditions, from_cache, from_labels, picture
from mage.recipes.inputs import Batches, cached_batches, held_out, image_batches, open_data
from mage.recipes.online import watch_tokens
from mage.recipes.schema import Recipe, to_yaml
from mage.tokenizers import VQGAN, Tokenizer
from mage.tokenizers.perceptual import build_perceptual
from mage.training.checkpoint import newest_checkpoint
from mage.training.contrastive import ContrastivePretraining
from mage.training.engine import train
from mage.training.pretrain import Pretraining, Watch
from mage.training.run import TrainResult
from mage.training.tokenizer import TokenizerTraining
from mage.vocabulary import Vocabulary

OnCount = Callable[[int], None]


def train_tokenizer(
    recipe: Recipe,
    out: Path,
    *,
    data_root: str | None = None,
    resume: bool = False,
    precision: str = "auto",
    device: str = "auto",
    progress: bool = True,
    workers: int = 0,
) -> TrainResult:
    """Train the recipe's VQGAN; the run folder `out` then holds it as a model."""
    check_out(out, resume)
    where = resolve_device(device)
    dataset = open_data(recipe.data.name, "train", recipe, data_root)
    validation = held_out(recipe, recipe.data.name, data_root)
    perceptual, loss = None, recipe.tokenizer_loss
    if loss.perceptual:
        if recipe.tokenizer.channels not in (1, 3):
            raise ValueError(
                f"a perceptual loss sees grey or RGB images, not {recipe.tokenizer.channels} channels: "
                "--set tokenizer_loss.perceptual=0"
            )
        perceptual = build_perceptual(
            loss.perceptual_network, weights=loss.perceptual_weights, size=loss.perceptual_size
        )
    transform, optim = recipe.data.tokenizer_transform, recipe.tokenizer_training
    source = image_batches(dataset, transform, optim, recipe.seed, workers=workers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.stream_seed(recipe.seed, "tokenizer weights"))
        tokenizer = VQGAN(recipe.tokenizer)
        torch.manual_seed(rng.stream_seed(recipe.seed, "discriminator weights"))
        task = TokenizerTraining(
            tokenizer,
            source,
            num_images=len(dataset),
            optim=optim,
            loss=loss,
            recipe=settings.to_dict(recipe),
            validation=validation,
            perceptual=perceptual,
            precision=resolve(precision, where),
        )
    result = run_task(task, recipe, out, resume=resume, precision=precision, device=where, progress=progress)
    return replace(result, skipped=tuple(dataset.skipped))


def tokenize(
    recipe: Recipe,
    tokenizer: Mage,
    out: Path,
    *,
    split: str = "train",
    data_root: str | None = None,
    workers: int = 0,
    on_images: OnCount | None = None,
) -> TokenCache:
    """Write the token cache that the recipe describes."""
    dataset = open_data(recipe.data.name, split, recipe, data_root)
    return write_cache(
        out,
        dataset,
        tokenizer.tokenizer,
        recipe.data.transform,
        split=split,
        views=recipe.data.views,
        seed=recipe.seed,
        encode=tokenizer.encode,
        workers=workers,
        on_images=on_images,
    )


def pretrain(
    recipe: Recipe,
    tokenizer: Mage,
    out: Path,
    *,
    cache: TokenCache | None = None,
    data_root: str | None = None,
    init_from: Mage | None = None,
    resume: bool = False,
    precision: str = "auto",
    device: str = "auto",
    progress: bool = True,
    workers: int = 0,
) -> TrainResult:
    """Pre-train MAGE on a token cache, or without one on images that are tokenized on the fly.

    init_from: a model whose weights are where training begins, as far as they fit (domain adaptation).
    """
    check_out(out, resume)
    skipped: list[str] = []
    pairs = recipe.contrastive.weight > 0
    conditions = Conditions()
    if cache is not None:
        cache.check_tokenizer(tokenizer.tokenizer)
        where = resolve_device(device)
        conditions, cache = from_cache(recipe, cache, init_from, folder=out, resume=resume, device=where)
        if recipe.conditions.source == "clusters" and not resume:
            save_png(out / "figures" / "clusters.png", picture(tokenizer, cache))
        num_images, source = len(cache), cached_batches(cache, recipe.pretraining, recipe.seed, pairs=pairs)
    else:
        dataset = open_data(recipe.data.name, "train", recipe, data_root)
        num_images, skipped = len(dataset), dataset.skipped
        conditions = from_labels(recipe, dataset.labels, dataset.class_names)
        source = image_batches(
            dataset, recipe.data.transform, recipe.pretraining, recipe.seed, workers=workers, pairs=pairs
        )
    validation = tokenizer.encode(held_out(recipe, recipe.data.name, data_root).float() / 255).cpu().clone()
    watch = watch_tokens(recipe, tokenizer, data_root) if recipe.data.online_images else None
    task = _pretraining(recipe, tokenizer, tokenizer.tokenizer, source, num_images, validation, watch, conditions)
    if init_from is not None and not resume:
        start_from(task.network, init_from, tokenizer.tokenizer)
    where = resolve_device(device)
    result = run_task(task, recipe, out, resume=resume, precision=precision, device=where, progress=progress)
    return replace(result, skipped=tuple(skipped))


def pretrain_on_tokens(
    recipe: Recipe,
    cache: TokenCache,
    out: Path,
    *,
    validation: TokenCache | None = None,
    resume: bool = False,
    precision: str = "auto",
    device: str = "auto",
    progress: bool = True,
) -> TrainResult:
    """Pre-train MAGE on tokens that are no image's, such as text, audio codes, actions: no tokenizer takes part.

    The model's folder then holds a transformer only. validation: tokens of the same kind that training does not see.
    """
    check_out(out, resume)
    held = None
    if validation is not None:
        if (validation.grid, validation.num_codes) != (cache.grid, cache.num_codes):
            raise ValueError(
                f"{validation.folder} holds tokens below {validation.num_codes} on a grid of {validation.grid}, "
                f"{cache.folder} below {cache.num_codes} on {cache.grid}"
            )
        chosen = np.arange(min(len(validation), recipe.data.validation_images))
        held = validation.tokens(chosen, np.zeros_like(chosen))
    where = resolve_device(device)
    model = Mage(None, None, precision=precision, device=device)
    conditions, cache = from_cache(recipe, cache, None)
    source = cached_batches(cache, recipe.pretraining, recipe.seed, pairs=recipe.contrastive.weight > 0)
    task = _pretraining(recipe, model, cache, source, len(cache), held, None, conditions)
    return run_task(task, recipe, out, resume=resume, precision=precision, device=where, progress=progress)


def _pretraining(
    recipe: Recipe,
    model: Mage,
    tokens: Tokenizer | TokenCache,
    source: Batches,
    num_images: int,
    validation: Tensor | None,
    watch: Watch | None,
    conditions: Conditions,
) -> Pretraining:
    """The task on tokens of this kind: `tokens` says how many codes there are and on what grid."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.stream_seed(recipe.seed, "mage weights"))
        classes = len(conditions.names)
        words = Vocabulary.fresh(tokens.num_codes, classes if recipe.model.class_input == "encoder" else 0)
        network = MAGE(replace(recipe.model, num_classes=classes), words, tokens.grid)
    settings_of_task: dict[str, Any] = dict(
        num_images=num_images,
        optim=recipe.pretraining,
        masking=recipe.masking,
        sampling=recipe.sampling,
        recipe=settings.to_dict(recipe),
        seed=recipe.seed,
        validation=validation,
        notes=model.notes | conditions.notes(),
        precision=model.precision,
        watch=watch,
        conditions=recipe.conditions,
    )
    if recipe.contrastive.weight:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.stream_seed(recipe.seed, "projection weights"))
            return ContrastivePretraining(
                network, model.tokenizer, source, contrastive=recipe.contrastive, **settings_of_task
            )
    return Pretraining(network, model.tokenizer, source, **settings_of_task)


def load_tokenizer(path: str | Path, *, precision: str = "auto", device: str = "auto") -> Mage:
    """The tokenizer of any model or tokenizer folder. Raises ValueError where there is none."""
    model = io.load(path, precision=precision, device=device)
    if model.tokenizer is None:
        raise ValueError(f"{path} holds no tokenizer")
    return Mage(model.tokenizer, None, recipe=model.recipe, notes=model.notes, precision=precision, device=device)


def run_task(
    task: Any, recipe: Recipe, out: Path, *, resume: bool, precision: str, device: torch.device, progress: bool
) -> TrainResult:
    """Train in the run folder `out`, which says by which recipe."""
    if not resume:
        atomic.write_text(out / "recipe.yaml", to_yaml(recipe))
    return train(
        task,
        recipe.run,
        out,
        seed=recipe.seed,
        settings=settings.to_dict(recipe),
        resume=resume,
        precision=precision,
        device=device,
        progress=progress,
    )


def check_out(out: Path, resume: bool) -> None:
    """Say what is wrong with a run folder before anything is loaded or written."""
    if resume and newest_checkpoint(out) is None:
        raise ValueError(f"{out} holds no checkpoint to resume from; start the run without --resume")
    if not resume and newest_checkpoint(out) is not None:
        raise ValueError(f"{out} already holds a run; add --resume to go on with it, or choose another folder")
    if out.is_file():
        raise ValueError(f"{out} is a file; --out takes a folder")
