"""From a recipe to results: train the tokenizer, cache tokens, pre-train MAGE. Front ends parse, call and print."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mage import atomic, rng, settings
from mage.checkpoints import io
from mage.data.datasets import ImageDataset, load_dataset, subset
from mage.data.loaders import TrainLoader, decode_to_memory, evaluation_batches
from mage.data.token_cache import TokenCache, token_batches, write_cache
from mage.data.transforms import TransformConfig, build_transform
from mage.models import MAGE
from mage.pipeline import Mage
from mage.precision import resolve, resolve_device
from mage.recipes.schema import Recipe, to_yaml
from mage.tokenizers import VQGAN, Tokenizer
from mage.tokenizers.perceptual import build_perceptual
from mage.training.checkpoint import newest_checkpoint
from mage.training.engine import train
from mage.training.optim import OptimConfig
from mage.training.pretrain import Pretraining
from mage.training.run import TrainResult
from mage.training.tokenizer import TokenizerTraining
from mage.vocabulary import Vocabulary

OnCount = Callable[[int], None]
Batches = Callable[[int, int, int], Iterator[dict[str, Tensor]]]
"""(number of the first batch, rank, world size) -> this process's batches from there on."""


def open_data(name: str, split: str, recipe: Recipe, data_root: str | None) -> ImageDataset:
    """A data set with the recipe's number of channels."""
    return load_dataset(name, split=split, data_root=data_root, channels=recipe.tokenizer.channels)


def held_out(recipe: Recipe, name: str, data_root: str | None) -> Tensor:
    """Up to `validation_images` images of the test split, chosen evenly from a shuffled order: uint8 (n, c, h, w)."""
    dataset = open_data(name, "test", recipe, data_root)
    order = torch.randperm(len(dataset), generator=rng.generator(0, "validation")).tolist()
    plain = replace(recipe.data.transform, augmentation="none")
    return load_images(dataset, order[: recipe.data.validation_images], plain)


def load_images(dataset: ImageDataset, indices: list[int], transform: TransformConfig) -> Tensor:
    """Some images of a data set, cut to size; corrupt ones are left out."""
    batches = evaluation_batches(subset(dataset, indices), build_transform(transform), batch_size=256)
    return torch.cat([batch["images"] for batch in batches])


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
    _check_out(out, resume)
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
    source = _image_batches(dataset, transform, optim, recipe.seed, workers)
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
    result = _train(task, recipe, out, resume=resume, precision=precision, device=where, progress=progress)
    return replace(result, skipped=tuple(dataset.skipped))


def tokenize(
    recipe: Recipe,
    tokenizer: Mage,
    out: Path,
    *,
    split: str = "train",
    data_root: str | None = None,
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
        on_images=on_images,
    )


def pretrain(
    recipe: Recipe,
    tokenizer: Mage,
    out: Path,
    *,
    cache: TokenCache | None = None,
    data_root: str | None = None,
    resume: bool = False,
    precision: str = "auto",
    device: str = "auto",
    progress: bool = True,
    workers: int = 0,
) -> TrainResult:
    """Pre-train MAGE on a token cache, or without one on images that are tokenized on the fly."""
    _check_out(out, resume)
    skipped: list[str] = []
    if cache is not None:
        cache.check_tokenizer(tokenizer.tokenizer)
        num_images, source = len(cache), _token_batches(cache, recipe.pretraining, recipe.seed)
    else:
        dataset = open_data(recipe.data.name, "train", recipe, data_root)
        num_images, skipped = len(dataset), dataset.skipped
        source = _image_batches(dataset, recipe.data.transform, recipe.pretraining, recipe.seed, workers)
    validation = tokenizer.encode(held_out(recipe, recipe.data.name, data_root).float() / 255).cpu().clone()
    task = _pretraining(recipe, tokenizer, tokenizer.tokenizer, source, num_images, validation)
    where = resolve_device(device)
    result = _train(task, recipe, out, resume=resume, precision=precision, device=where, progress=progress)
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
    _check_out(out, resume)
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
    source = _token_batches(cache, recipe.pretraining, recipe.seed)
    task = _pretraining(recipe, model, cache, source, len(cache), held)
    return _train(task, recipe, out, resume=resume, precision=precision, device=where, progress=progress)


def _pretraining(
    recipe: Recipe,
    model: Mage,
    tokens: Tokenizer | TokenCache,
    source: Batches,
    num_images: int,
    validation: Tensor | None,
) -> Pretraining:
    """The task on tokens of this kind: `tokens` says how many codes there are and on what grid."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.stream_seed(recipe.seed, "mage weights"))
        network = MAGE(recipe.model, Vocabulary.fresh(tokens.num_codes), tokens.grid)
    return Pretraining(
        network,
        model.tokenizer,
        source,
        num_images=num_images,
        optim=recipe.pretraining,
        masking=recipe.masking,
        sampling=settings.to_dict(recipe.sampling),
        recipe=settings.to_dict(recipe),
        seed=recipe.seed,
        validation=validation,
        notes=model.notes,
        precision=model.precision,
    )


def load_tokenizer(path: str | Path, *, precision: str = "auto", device: str = "auto") -> Mage:
    """The tokenizer of any model or tokenizer folder. Raises ValueError where there is none."""
    model = io.load(path, precision=precision, device=device)
    if model.tokenizer is None:
        raise ValueError(f"{path} holds no tokenizer")
    return Mage(model.tokenizer, None, recipe=model.recipe, notes=model.notes, precision=precision, device=device)


def _image_batches(
    dataset: ImageDataset, transform: TransformConfig, optim: OptimConfig, seed: int, workers: int
) -> Batches:
    """Augmented images for training; a set of small images is read into memory once."""
    per_part = optim.batch_size // optim.accumulation
    source = dataset if workers else decode_to_memory(dataset)

    def batches(start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        loader = TrainLoader(
            source,
            build_transform(transform),
            batch_size=per_part // world_size,
            seed=seed,
            start_step=start,
            rank=rank,
            world_size=world_size,
            num_workers=workers,
        )
        return iter(loader)

    batches(0, 0, 1)  # a batch that does not fit is an error now, before anything is written
    return batches


def _token_batches(cache: TokenCache, optim: OptimConfig, seed: int) -> Batches:
    per_part = optim.batch_size // optim.accumulation

    def batches(start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        share = per_part // world_size
        return token_batches(cache, batch_size=share, seed=seed, start=start, rank=rank, world_size=world_size)

    batches(0, 0, 1)
    return batches


def _train(
    task: Any, recipe: Recipe, out: Path, *, resume: bool, precision: str, device: torch.device, progress: bool
) -> TrainResult:
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


def _check_out(out: Path, resume: bool) -> None:
    """Say what is wrong with a run folder before anything is loaded or written."""
    if resume and newest_checkpoint(out) is None:
        raise ValueError(f"{out} holds no checkpoint to resume from; start the run without --resume")
    if not resume and newest_checkpoint(out) is not None:
        raise ValueError(f"{out} already holds a run; add --resume to go on with it, or choose another folder")
    if out.is_file():
        raise ValueError(f"{out} is a file; --out takes a folder")
