"""Masked autoencoder on pixels (He et al. 2022): a baseline, for comparisons on the same training engine.

Three quarters of the patches are left out; a light decoder predicts their pixels, each patch normalised to mean 0 and
variance 1. The encoder has the same blocks as MAGE's: the two methods differ in the prediction target and mask ratio.

Positions are fixed in pre-training, as published. The scale of pixels differs from the public code: here the encoder
sees [-1, 1] and a patch is normalised from [0, 1]; there each channel is first standardised by ImageNet's mean and
deviation, so that its targets weigh the channels a little differently.

Letters: n images, c channels, H W pixels, l patches, k kept patches, d encoder width, p decoder width, q numbers of a
patch.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mage.masking import Mask
from mage.models.pixels import PatchEncoder, PatchEncoderConfig, to_patches
from mage.nn.blocks import choose_attention, transformer_blocks, xavier_linears
from mage.nn.grids import area
from mage.nn.positions import sincos_positions
from mage.nn.precision import in_full


@dataclass(frozen=True)
class MAEConfig:
    """What MAE adds to its encoder; the defaults are those of the published pre-training."""

    decoder_width: int = 512
    """Width of the decoder."""
    decoder_depth: int = 8
    """Blocks of the decoder."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""
    mask_ratio: float = 0.75
    """Share of the patches that are left out and predicted."""
    normalize_patches: bool = True
    """Standardise each patch's pixels before they are predicted: the public code's --norm_pix_loss."""

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie in (0, 1), not {self.mask_ratio}")


class MAE(nn.Module):
    """Encoder and decoder; after pre-training only the encoder is kept."""

    decoder_position: Tensor

    def __init__(self, encoder: PatchEncoderConfig, config: MAEConfig) -> None:
        super().__init__()
        patches = area(encoder.grid)
        if math.ceil(config.mask_ratio * patches) >= patches:
            raise ValueError(
                f"a mask_ratio of {config.mask_ratio} leaves out all {patches} patches: take a smaller one, or patches"
            )
        self.config = config
        self.encoder = PatchEncoder(encoder)
        self.decoder_embed = nn.Linear(encoder.width, config.decoder_width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.decoder_width))
        self.register_buffer("decoder_position", sincos_positions(encoder.grid, config.decoder_width)[None])
        self.decoder_blocks = transformer_blocks(
            config.decoder_depth,
            config.decoder_width,
            config.decoder_heads,
            mlp_ratio=encoder.mlp_ratio,
            dropout=0.0,
        )
        self.decoder_norm = nn.LayerNorm(config.decoder_width, eps=1e-6)
        self.head = nn.Linear(config.decoder_width, encoder.channels * encoder.patch_size**2)
        for part in (self.decoder_embed, self.decoder_blocks, self.head):
            xavier_linears(part)
        nn.init.normal_(self.mask_token, std=0.02)
        choose_attention(self, self.mask_token.device)

    def forward(self, images: Float[Tensor, "n c H W"], mask: Mask) -> Float[Tensor, "n l q"]:
        """Predicted patches, at all positions; the masked ones are those that were dropped."""
        assert self.encoder.norm is not None
        x = self.decoder_embed(self.encoder.norm(self.encoder(images, mask)))
        # Index of each position's vector among the kept ones; dropped positions get the mask token.
        source = (~mask.dropped).cumsum(dim=1).sub(1).clamp(min=0)
        kept = x[:, 1:].gather(1, source[..., None].expand(-1, -1, x.shape[2]))
        tokens = torch.where(mask.dropped[..., None], self.mask_token.to(kept.dtype), kept) + self.decoder_position
        x = torch.cat([x[:, :1], tokens], dim=1)
        for block in self.decoder_blocks:
            x = block(x)
        predicted: Tensor = self.head(self.decoder_norm(x[:, 1:]))
        return predicted

    def loss(self, images: Float[Tensor, "n c H W"], mask: Mask) -> Float[Tensor, ""]:
        """Mean squared error of the left-out patches."""
        predicted = in_full(self(images, mask))
        target = to_patches(images, self.encoder.config.patch_size)
        if self.config.normalize_patches:
            mean, variance = target.mean(dim=2, keepdim=True), target.var(dim=2, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        patch_errors = (predicted - target).square().mean(dim=2)
        loss: Tensor = (patch_errors * mask.dropped).sum() / mask.dropped.sum()
        return loss
