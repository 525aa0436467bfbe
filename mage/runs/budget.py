"""Cost of a recipe: number of images, parameters and FLOPs, from networks on the meta device."""

from dataclasses import dataclass
from pathlib import Path

import torch

from mage.data.datasets import DATASETS, DOWNLOADED
from mage.data.splits import held_out
from mage.masking import MaskRatioConfig
from mage.models import MAGEConfig, MAGETransformer
from mage.nn.grids import area
from mage.recipes.schema import Recipe
from mage.runs.inputs import training_data
from mage.tokenizers import VQGAN
from mage.vocabulary import Vocabulary

KNOWN = {
    "imagenet": (1_281_167, 1000),
    "cifar10": (50_000, 10),
    "cifar100": (50_000, 100),
    "mnist": (60_000, 10),
    "fashion-mnist": (60_000, 10),
}
"""Training images and classes of public data sets, so that they need not be downloaded to be counted."""

MEAN_RATIO = 0.694
"""Mean mask ratio of the published distribution."""


@dataclass(frozen=True)
class Extent:
    """Number of images in a training."""

    train: int
    held_out: int
    """Training images held out for validation."""
    classes: int
    """0: none, or unknown."""
    source: str
    """Source of the numbers."""

    def sentence(self, recipe: Recipe) -> str:
        """The numbers in a sentence, with the image size."""
        classes = f" in {self.classes:,} classes" if self.classes else ""
        height, width = recipe.image_size
        return (
            f"{recipe.name}: {self.train:,} images{classes} to train on, {self.held_out:,} held out for validation, "
            f"at {height} x {width} pixels ({self.source})"
        )


def count_images(recipe: Recipe, data_root: str | None = None, images: int | None = None) -> Extent:
    """Count the images of the recipe's data; images: their number, if it is given.

    Raises ValueError if the data is missing and not a known public data set.
    """
    name, config = recipe.data.name, recipe.data.validation
    if images is not None:
        held = held_out(images, config)
        return Extent(images - held, held, 0, f"of {images:,} as given")
    own = name not in DATASETS and Path(name).is_dir()
    if name in KNOWN and not own and (name in DOWNLOADED or data_root is None):
        total, classes = KNOWN[name]
        held = held_out(total, config)
        return Extent(total - held, held, classes, f"of the {total:,} of {name}; for your own: --data or --images")
    try:
        data = training_data(recipe, data_root)
    except ValueError as error:
        raise ValueError(f"{error}; to plan without the images, give their number: --images 1000") from None
    return Extent(len(data.train), len(data.validation), len(data.train.class_names), f"counted in {name}")


def budget(recipe: Recipe, num_images: int) -> dict[str, float]:
    """Parameters, FLOPs of a pre-training step, steps, and bytes of the token cache for `num_images` training images.

    For methods on pixels, the steps only.

    A multiply-add counts as two FLOPs; the backward pass as twice the forward pass. Norms, activations and
    embeddings, together a few per cent, are left out.
    """
    steps = recipe.pretraining.num_steps(num_images)
    if recipe.tokenizer is None:
        return {"steps": steps}
    grid = recipe.tokenizer.grid
    with torch.device("meta"):
        tokenizer = VQGAN(recipe.tokenizer)
        network = MAGETransformer(recipe.model, Vocabulary.fresh(tokenizer.num_codes), grid)
    tokens = area(grid)
    masking = getattr(recipe.method, "masking", MaskRatioConfig())
    drop_ratio = masking.drop_ratio
    views = 2 if recipe.method.pairs else 1
    per_image = views * training_flops(recipe.model, tokens, tokenizer.num_codes, drop_ratio)
    return {
        "tokenizer_parameters": sum(parameter.numel() for parameter in tokenizer.parameters()),
        "transformer_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "encoder_parameters": sum(parameter.numel() for parameter in network.encoder.parameters()),
        "flops_per_image": per_image,
        "flops_per_step": per_image * recipe.pretraining.batch_size,
        "steps": steps,
        "flops_in_all": per_image * recipe.pretraining.batch_size * steps,
        "token_cache_bytes": 2 * tokens * recipe.data.views * num_images,
    }


def training_flops(
    config: MAGEConfig, tokens: int, num_codes: int, drop_ratio: float, scored: float = MEAN_RATIO
) -> float:
    """FLOPs of one training image: encoder on the kept tokens, decoder on all, logits of the share `scored` of them."""
    kept = 1 + tokens - -int(-drop_ratio * tokens // 1)
    forward = block_flops(config.width, config.mlp_ratio, kept) * config.depth
    forward += block_flops(config.decoder_width, config.mlp_ratio, tokens + 1) * config.decoder_depth
    forward += 2 * kept * config.width * config.decoder_width
    forward += 2 * scored * tokens * config.width * (config.decoder_width + num_codes)
    return 3 * forward


def block_flops(width: int, mlp_ratio: float, length: int) -> float:
    """Forward FLOPs of one transformer block on one sequence."""
    projections = 2 * length * width * width * (4 + 2 * mlp_ratio)
    attention = 2 * 2 * length * length * width
    return projections + attention
