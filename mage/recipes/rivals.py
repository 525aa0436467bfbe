"""Pre-training the rivals MAE and SimCLR, from a recipe whose `method` names one (front ends parse, call and print)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mage import rng, settings
from mage.models.mae import MAE
from mage.models.pixels import PatchEncoderConfig
from mage.models.simclr import SimCLR
from mage.precision import resolve_device
from mage.recipes.inputs import held_out, image_batches, open_data
from mage.recipes.online import watch_images
from mage.recipes.runs import check_out, run_task
from mage.recipes.schema import Recipe
from mage.training.pixels import MAEPretraining, PixelPretraining, SimCLRPretraining
from mage.training.run import TrainResult


def encoder_config(recipe: Recipe) -> PatchEncoderConfig:
    """MAGE's encoder sizes, on patches of the recipe's images."""
    return PatchEncoderConfig(
        image_size=recipe.tokenizer.image_size,
        channels=recipe.tokenizer.channels,
        patch_size=recipe.pixels.patch_size,
        width=recipe.model.width,
        depth=recipe.model.depth,
        heads=recipe.model.heads,
        mlp_ratio=recipe.model.mlp_ratio,
    )


def pretrain_on_pixels(
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
    """Pre-train MAE or SimCLR on images; the model's folder then holds the encoder."""
    check_out(out, resume)
    encoder = encoder_config(recipe)
    dataset = open_data(recipe.data.name, "train", recipe, data_root)
    source = image_batches(
        dataset,
        recipe.data.transform,
        recipe.pretraining,
        recipe.seed,
        workers=workers,
        pairs=recipe.method == "simclr",
    )
    common: dict[str, Any] = dict(
        num_images=len(dataset),
        optim=recipe.pretraining,
        recipe=settings.to_dict(recipe),
        seed=recipe.seed,
        validation=held_out(recipe, recipe.data.name, data_root),
        watch=watch_images(recipe, data_root) if recipe.data.online_images else None,
    )
    task: PixelPretraining
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.stream_seed(recipe.seed, f"{recipe.method} weights"))
        if recipe.method == "mae":
            task = MAEPretraining(MAE(encoder, recipe.pixels.mae), source, **common)
        elif recipe.method == "simclr":
            network = SimCLR(encoder, recipe.contrastive)
            task = SimCLRPretraining(network, source, colour=recipe.pixels.colour, **common)
        else:
            raise ValueError(f"the method {recipe.method} is trained on tokens: give a tokenizer")
    where = resolve_device(device)
    result = run_task(task, recipe, out, resume=resume, precision=precision, device=where, progress=progress)
    return replace(result, skipped=tuple(dataset.skipped))
