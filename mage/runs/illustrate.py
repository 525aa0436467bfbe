"""Pictures of what a finished run has learned, for its report: drawn from the model that lies in the run folder."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mage import images
from mage.data.datasets import evenly, load_dataset
from mage.data.transforms import TransformConfig
from mage.models import MAGETransformer, PatchClassifier, PatchEncoder
from mage.pipeline import Mage, load
from mage.runs.gallery import SHOWN, Gallery, drawn_states, state_of
from mage.runs.inputs import data_of_model, load_images, trained_on

POOL, SAMPLES = 200, 64
"""Real images among which neighbours are sought, and generated images."""


class Drawn(NamedTuple):
    """Names of the pictures that were drawn, and why others were not."""

    names: tuple[str, ...]
    problems: tuple[str, ...]


def illustrate(run: Path, *, device: str = "auto", precision: str = "auto", data_root: str | None = None) -> Drawn:
    """Draw RUN/figures that are missing or show an earlier state: reconstructions, samples, edits, neighbours.

    Real images are held-out ones of the training data, or test images where few are held out; without the data only
    samples are drawn. A folder without a model has nothing to draw.
    """
    if not state_of(run):
        return Drawn((), ())
    model = load(run, device=device, precision=precision)
    if model.tokenizer is None and not _reads_pixels(model):
        return Drawn((), ())
    gallery = Gallery(model, torch.empty(0, model.channels, *model.image_size), run, SAMPLES)
    problems = list[str]()
    drawn, state = drawn_states(run), state_of(run)
    wanted = [
        name for name in _drawable(model) if not (_picture(run, name).is_file() and drawn.get(name, state) == state)
    ]
    if any(name not in ("samples", "classes") for name in wanted):
        try:
            gallery.shown = _real_images(model, data_root)
        except (ValueError, OSError) as error:
            problems.append(f"no pictures of real images: {' '.join(str(error).split())[:200]}")
            wanted = [name for name in wanted if name in ("samples", "classes")]
    draw = {
        "samples": gallery.samples, "classes": gallery.classes, "reconstruct": gallery.reconstructions,
        "tokenizer": gallery.tokenizer, "edit": gallery.edits, "neighbours": gallery.neighbours,
    }  # fmt: skip
    for name in wanted:
        draw[name]()
    return Drawn(tuple(wanted), tuple(problems))


def _reads_pixels(model: Mage) -> bool:
    return isinstance(model.transformer, PatchEncoder | PatchClassifier)


def _drawable(model: Mage) -> list[str]:
    """Names of the pictures that this kind of model can give."""
    names = ["tokenizer"] if model.tokenizer is not None else []
    if isinstance(model.transformer, MAGETransformer):
        names += ["samples", "reconstruct"]
        names += ["edit"] if len(model.transformer.grid) == 2 else []
        names += ["classes"] if model.transformer.config.num_classes else []
    return names + (["neighbours"] if model.transformer is not None else [])


def _picture(run: Path, name: str) -> Path:
    return run / "figures" / f"{name}.png"


def _real_images(model: Mage, data_root: str | None) -> Float[Tensor, "n c h w"]:
    name = trained_on(model)
    if name is None:
        raise ValueError("the model does not say which data it was trained on")
    dataset = data_of_model(model, name, data_root).validation
    if len(dataset) < SHOWN:
        dataset = load_dataset(name, split="test", data_root=data_root, channels=model.channels)
    chosen = evenly(dataset, POOL)
    return images.to_float(load_images(chosen, list(range(len(chosen))), TransformConfig(size=model.image_size)))
