"""Attention of an encoder's block: how much each position takes from every other one.

Letters: n images, a heads, p positions (the class position first, then the tokens, row by row), d width.
"""

from typing import Any

from jaxtyping import Float
from timm.models.vision_transformer import Attention
from torch import Tensor

from mage.models.intermediates import block_numbers


def attention_weights(layer: Attention, x: Float[Tensor, "n p d"]) -> Float[Tensor, "n a p p"]:
    """The weights by which `layer` mixes the positions of its input: each row, of one position, sums to 1."""
    count, length, _ = x.shape
    qkv = layer.qkv(x).reshape(count, length, 3, layer.num_heads, layer.head_dim).permute(2, 0, 3, 1, 4)
    query, key = layer.q_norm(qkv[0]), layer.k_norm(qkv[1])
    weights: Tensor = (query * layer.scale @ key.transpose(-2, -1)).float().softmax(dim=-1)
    return weights


def encoder_attention(encoder: Any, inputs: Tensor, block: int) -> Float[Tensor, "n a p p"]:
    """Attention weights of one block, numbered from 0 or, negative, from the end. Raises ValueError for another.

    encoder: has `embed` and `blocks`. inputs: token grids or images, as the encoder takes them.
    """
    (number,) = block_numbers(len(encoder.blocks), [block])
    x = encoder.embed(inputs if inputs.is_floating_point() else inputs.flatten(1))
    for earlier in encoder.blocks[:number]:
        x = earlier(x)
    chosen = encoder.blocks[number]
    return attention_weights(chosen.attn, chosen.norm1(x))
