"""The recipe by which a model's decoder learns to make images of tokens that the model itself draws."""

from dataclasses import replace

from mage.pipeline import Mage
from mage.recipes.resolve import Choice, resolve, without_steps
from mage.recipes.schema import Recipe
from mage.runs.initial_weights import check_tokenizer
from mage.settings import override
from mage.tokenizers import VQGAN

REDRAWN = 0.5
"""Largest share of an image's tokens that are redrawn, unless the user sets another."""
LEARNING_RATE = 0.25
"""Of that of the tokenizer's own training: the decoder has weights already."""


def decoder_recipe(model: Mage, choice: Choice) -> Recipe:
    """The model's own recipe, or the chosen one, with the model's tokenizer, of which the decoder alone is trained.

    Raises ValueError for a model without network, one whose tokenizer this library did not train, and for other
    sizes of it than more blocks of the decoder.
    """
    model.require_generator()
    tokenizer = model.require_tokenizer()
    if not isinstance(tokenizer, VQGAN):
        raise ValueError(f"the decoder of {type(tokenizer).__name__} cannot be trained: it is no VQGAN of this library")
    recipe = resolve(replace(choice, changes=()), base=model.recipe)
    optim = recipe.tokenizer_training
    recipe = replace(
        recipe,
        tokenizer=tokenizer.config,
        tokenizer_loss=replace(recipe.tokenizer_loss, freeze_encoder=True, redrawn=REDRAWN),
        tokenizer_training=replace(optim, base_learning_rate=LEARNING_RATE * optim.base_learning_rate),
        data=replace(
            recipe.data,
            tokenizer_transform=replace(recipe.data.tokenizer_transform, size=tokenizer.image_size),
            transform=replace(recipe.data.transform, size=tokenizer.image_size),
        ),
    )
    recipe = override(recipe, [*choice.changes, *without_steps(choice.changes)])
    assert recipe.tokenizer is not None
    check_tokenizer(recipe.tokenizer, tokenizer.config)
    return recipe
