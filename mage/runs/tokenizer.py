"""Train a tokenizer, and load the tokenizer of a model or tokenizer folder."""

from pathlib import Path
from typing import Any

import torch

from mage import rng, settings
from mage.data.datasets import content_of
from mage.pipeline import Mage, load
from mage.recipes.schema import Recipe
from mage.runs.initial_weights import check_tokenizer, start_tokenizer_from
from mage.runs.inputs import decoding_device, image_batches, tell_data, training_data, validation_images
from mage.runs.launch import Launch, announce, run_task
from mage.tokenizers import VQGAN
from mage.tokenizers.base import weights_fingerprint
from mage.training.redraw import Redraw
from mage.training.run import TrainResult
from mage.training.tokenizer import TokenizerTraining, perceptual_of

OF_NETWORK = ("class_names", "class_shares", "sampling_tuned")
"""Notes of a model folder on the network that was trained on its tokenizer's tokens."""


def train_tokenizer(
    recipe: Recipe, launch: Launch, *, init_from: VQGAN | None = None, redrawn_by: Mage | None = None
) -> TrainResult:
    """Train the recipe's VQGAN; the run folder then holds it as a model.

    init_from: a tokenizer of the recipe's sizes, whose weights it starts from; its decoder may have fewer blocks.
    redrawn_by: for a recipe with tokenizer_loss.redrawn, the model whose decoder is trained on tokens that it redraws;
    the run folder then holds all of the model. Raises ValueError for other sizes, for a recipe that freezes the encoder
    of a tokenizer with random weights, and for one that redraws tokens without a model.
    """
    launch.check_out()
    if redrawn_by is not None:
        words = redrawn_by.require_tokenizer()
        if not isinstance(words, VQGAN):
            raise ValueError(f"the decoder of {type(words).__name__} cannot be trained: it is no VQGAN of this library")
        if not recipe.tokenizer_loss.freeze_encoder:
            raise ValueError("tokenizer_loss.freeze_encoder=false would change the tokens, which the network knows")
        init_from = words
    if recipe.tokenizer is None:
        raise ValueError(f"the recipe {recipe.name} has no tokenizer: its method reads pixels")
    if init_from is None and recipe.tokenizer_loss.freeze_encoder:
        raise ValueError(
            "tokenizer_loss.freeze_encoder needs a tokenizer that has weights: leave it out, or `mage adapt`"
        )
    if init_from is not None:
        check_tokenizer(recipe.tokenizer, init_from.config)
    redraw = _redraw(recipe, redrawn_by)
    device = launch.start()
    loss = recipe.tokenizer_loss
    perceptual = perceptual_of(loss, recipe.channels)
    data = training_data(recipe, launch.data_root)
    transform, optim = recipe.data.tokenizer_transform, recipe.tokenizer_training
    tell_data(data, recipe.data.name, transform.size)
    source = image_batches(
        data.train, transform, optim, recipe.seed, workers=launch.workers, device=decoding_device(recipe, device)
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.stream_seed(recipe.seed, "tokenizer weights"))
        tokenizer = VQGAN(recipe.tokenizer)
        if init_from is not None:
            start_tokenizer_from(tokenizer, init_from)
        torch.default_generator.manual_seed(rng.stream_seed(recipe.seed, "discriminator weights"))
        task = TokenizerTraining(
            tokenizer,
            source,
            num_images=len(data.train),
            optim=optim,
            loss=loss,
            recipe=settings.to_dict(recipe),
            validation=validation_images(recipe, data.validation),
            perceptual=perceptual,
            precision=launch.resolved_precision(),
            redraw=redraw,
            whole=None if redrawn_by is None else redrawn_by.parts,
        )
    activity = "tuning a tokenizer's decoder" if loss.freeze_encoder else "training a tokenizer"
    learned = _learned(recipe, content_of(data.train))
    if redrawn_by is not None:
        learned["redrawn_by"] = weights_fingerprint(redrawn_by.require_generator().state_dict())
    announce(activity, recipe, launch, optim, len(data.train), recipe.tokenizer.grid)
    return run_task(task, recipe, launch, learned, data.train)


def _redraw(recipe: Recipe, model: Mage | None) -> Redraw | None:
    """What the recipe does to tokens before they are decoded; nothing if it redraws none."""
    largest = recipe.tokenizer_loss.redrawn
    if not largest:
        return None
    if model is None:
        raise ValueError(
            "tokenizer_loss.redrawn needs the model that redraws tokens: `mage train-tokenizer --decoder-of`"
        )
    return Redraw(model.require_generator(), model.sampling, largest=largest, seed=recipe.seed)


def _learned(recipe: Recipe, content: str) -> dict[str, Any]:
    values = settings.to_dict(recipe)
    kept = {name: values[name] for name in ("tokenizer", "tokenizer_loss", "tokenizer_training", "seed")}
    data = {name: values["data"][name] for name in ("name", "tokenizer_transform")}
    return kept | {"data": data, "content": content}


def load_tokenizer(path: str | Path, *, precision: str = "auto", device: str = "auto") -> Mage:
    """The tokenizer of any model or tokenizer folder. Raises ValueError if there is none."""
    model = load(path, precision=precision, device=device)
    if model.tokenizer is None:
        raise ValueError(f"{path} holds no tokenizer")
    return tokenizer_of(model)


def tokenizer_of(model: Mage) -> Mage:
    """The tokenizer of a model, without what its notes say of the classes and of the sampler of its network."""
    notes = notes_of_tokenizer(model)
    return Mage(model.tokenizer, None, recipe=model.recipe, notes=notes, precision=model.precision, device=model.device)


def notes_of_tokenizer(model: Mage) -> dict[str, Any]:
    """The notes of a model that hold for every network on its tokenizer's tokens."""
    return {name: note for name, note in model.notes.items() if name not in OF_NETWORK}
