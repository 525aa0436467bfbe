"""Transformer blocks are timm's: pre-norm, with the parameter names of the released checkpoints.

The fastest attention kernel depends on the device: on a GPU it is the fused one, on CPUs the explicit
softmax(q k) v, whose backward pass in bfloat16 takes a fifth of the fused kernel's time.
"""

from functools import partial

import torch
from timm.models.vision_transformer import Attention, Block
from torch import nn

from mage.nn.dropout import use_dropout


def transformer_blocks(
    depth: int, width: int, heads: int, *, mlp_ratio: float, dropout: float, drop_path: float = 0.0
) -> nn.ModuleList:
    """`depth` pre-norm ViT blocks; `dropout` on attention, projection and MLP; `drop_path` grows with depth."""
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of {heads} heads; change the width or the number of heads")
    blocks = nn.ModuleList(
        Block(
            width,
            heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=True,
            proj_drop=dropout,
            attn_drop=dropout,
            drop_path=drop_path * index / max(1, depth - 1),
            norm_layer=partial(nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]  # a function is enough
        )
        for index in range(depth)
    )
    use_dropout(blocks)
    return blocks


def choose_attention(module: nn.Module, device: torch.device) -> None:
    """Set every attention layer below `module` to the kernel that is fastest on `device`."""
    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.fused_attn = device.type != "cpu"  # type: ignore[misc]  # timm calls it final for TorchScript's sake


def xavier_linears(module: nn.Module) -> None:
    """Xavier-uniform weights and zero bias for every Linear below `module` (section 4)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
