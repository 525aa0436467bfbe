"""`mage generate`: new images."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mage
from mage import atomic, images
from mage.cli.options import Common, check_parent, counting, emit


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Make new images: OUT/000000.png, ... and OUT/grid.png; of a model without tokenizer: OUT/tokens.npy."""

    model: Path
    """model or run folder"""
    out: Path
    """folder for the images"""
    num: int = 64
    """number of images"""
    seed: int = 0
    """image k of a seed is the same whatever --num and --batch-size"""
    steps: int | None = None
    """network passes per image; default: the model's own, else 20"""
    choice_temperature: float | None = None
    """more means more variety; default: the model's own, else 6"""
    token_temperature: float | None = None
    """0 takes the most probable code; default 1"""
    encoder_keep: float | None = None
    """share of the tokens that the encoder sees while more are unknown; 0.5, as in training, is faster; default 1"""
    batch_size: int = 64
    """images at a time"""


def run(options: Options) -> None:
    """Generate batch by batch and write each image as it is ready."""
    check_parent(options.out / "grid.png")
    if options.num < 1 or options.batch_size < 1:
        raise ValueError(f"--num and --batch-size must be at least 1, not {options.num} and {options.batch_size}")
    model = mage.load(options.model, precision=options.precision, device=options.device)
    if model.tokenizer is None and model.transformer is not None:
        _generate_tokens(options, model)
        return
    shown: list[torch.Tensor] = []
    writing: list[Future[None]] = []
    with ThreadPoolExecutor(2) as writers, counting(options.num, "image", options) as done:
        for first in range(0, options.num, options.batch_size):
            count = min(options.batch_size, options.num - first)
            batch = model.generate(count, first_index=first, **_sampling(options)).cpu()
            _finish(writing)  # at most one batch waits to be written, however many are made
            writing = [
                writers.submit(images.save_png, options.out / f"{first + offset:06d}.png", image)
                for offset, image in enumerate(batch)
            ]
            shown += batch[: max(0, 100 - len(shown))].clone()
            done(len(batch))
        _finish(writing)
    grid = options.out / "grid.png"
    images.save_png(grid, images.enlarge(images.make_grid(torch.stack(shown))))
    emit(
        options, {"out": str(options.out), "images": options.num, "grid": str(grid)}, f"{options.num} images and {grid}"
    )


def _generate_tokens(options: Options, model: mage.Mage) -> None:
    with counting(options.num, "sequence", options) as done:
        ids = model.generate_tokens(options.num, on_batch=done, **_sampling(options)).cpu()
    with atomic.replacing(options.out / "tokens.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, ids.numpy())
    result = {"out": str(options.out / "tokens.npy"), "shape": list(ids.shape)}
    emit(options, result, f"{options.out / 'tokens.npy'}: integers {tuple(ids.shape)}; this model has no tokenizer")


def _sampling(options: Options) -> dict[str, Any]:
    names = ("seed", "steps", "choice_temperature", "token_temperature", "encoder_keep", "batch_size")
    return {name: getattr(options, name) for name in names}


def _finish(writing: list[Future[None]]) -> None:
    for image in writing:
        image.result()
