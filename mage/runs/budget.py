"""What a recipe costs, counted on networks that have shapes but no memory."""

import torch

from mage.masking import MaskRatioConfig
from mage.models import MAGEConfig, MAGETransformer
from mage.nn.grids import area
from mage.recipes.schema import Recipe
from mage.tokenizers import VQGAN
from mage.vocabulary import Vocabulary


def budget(recipe: Recipe, num_images: int) -> dict[str, float]:
    """Parameters, FLOPs of a pre-training step, steps, and bytes of the token cache for `num_images` images.

    A multiply-add counts as two FLOPs; the backward pass as twice the forward pass. Norms, activations and
    embeddings, together a few per cent, are left out.
    """
    if recipe.tokenizer is None:
        raise ValueError(f"the budget is that of methods that read tokens, and {recipe.name} has no tokenizer")
    grid = recipe.tokenizer.grid
    with torch.device("meta"):
        tokenizer = VQGAN(recipe.tokenizer)
        network = MAGETransformer(recipe.model, Vocabulary.fresh(tokenizer.num_codes), grid)
    tokens = area(grid)
    masking = getattr(recipe.method, "masking", MaskRatioConfig())
    drop_ratio = masking.drop_ratio
    per_image = training_flops(recipe.model, tokens, tokenizer.num_codes, drop_ratio)
    steps = recipe.pretraining.num_steps(num_images)
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


def training_flops(config: MAGEConfig, tokens: int, num_codes: int, drop_ratio: float) -> float:
    """FLOPs of one training image: encoder on the kept tokens, decoder on all, logits of the masked positions."""
    kept = 1 + tokens - -int(-drop_ratio * tokens // 1)
    forward = block_flops(config.width, config.mlp_ratio, kept) * config.depth
    forward += block_flops(config.decoder_width, config.mlp_ratio, tokens + 1) * config.decoder_depth
    forward += 2 * kept * config.width * config.decoder_width
    masked = 0.694 * tokens  # the mean mask ratio of the published distribution
    forward += 2 * masked * config.width * (config.decoder_width + num_codes)
    return 3 * forward


def block_flops(width: int, mlp_ratio: float, length: int) -> float:
    """Forward FLOPs of one transformer block on one sequence."""
    projections = 2 * length * width * width * (4 + 2 * mlp_ratio)
    attention = 2 * 2 * length * length * width
    return projections + attention
