"""A ViT on patches of pixels: the encoder of the baselines MAE, SimCLR and I-JEPA, with the same blocks as MAGE's.

Letters: n images, c channels, H W pixels, l patches, k kept patches, d width, q numbers of a patch.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mage.masking import Mask
from mage.models.pooling import Pool, features_of
from mage.nn.blocks import choose_attention, transformer_blocks, xavier_linears
from mage.nn.positions import sincos_positions
from mage.tokenizers.base import check_images


@dataclass(frozen=True)
class PatchEncoderConfig:
    """Sizes of a ViT on pixels; the defaults are ViT-B/16."""

    image_size: tuple[int, int] = (224, 224)
    """Height and width in pixels."""
    channels: int = 3
    """Channels of an image."""
    patch_size: int = 16
    """Pixels per side of a patch."""
    width: int = 768
    """Width of the encoder."""
    depth: int = 12
    """Blocks of the encoder."""
    heads: int = 12
    """Attention heads of the encoder."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs, as a multiple of the width."""

    def __post_init__(self) -> None:
        if self.patch_size < 1 or any(side % self.patch_size for side in self.image_size):
            raise ValueError(f"image size {self.image_size} is not a multiple of the patch size {self.patch_size}")

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size


class PatchEncoder(nn.Module):
    """Patches and blocks; `norm` is left out in classifiers that pool by mean."""

    def __init__(self, config: PatchEncoderConfig, *, final_norm: bool = True, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Linear(config.channels * config.patch_size**2, config.width)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.position = nn.Parameter(sincos_positions(config.grid, config.width)[None])
        self.blocks = transformer_blocks(
            config.depth, config.width, config.heads, mlp_ratio=config.mlp_ratio, dropout=0.0, drop_path=drop_path
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6) if final_norm else None
        xavier_linears(self)
        nn.init.normal_(self.class_token, std=0.02)
        choose_attention(self, self.class_token.device)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of patches."""
        return self.config.grid

    def forward(self, images: Float[Tensor, "n c H W"], mask: Mask | None = None) -> Float[Tensor, "n k1 d"]:
        """Output of the last block, class position first, before the final norm; dropped patches are left out."""
        x = self.embed(images, mask)
        for block in self.blocks:
            x = block(x)
        return x

    def embed(self, images: Float[Tensor, "n c H W"], mask: Mask | None = None) -> Float[Tensor, "n k1 d"]:
        """Input of the first block."""
        check_images(images, (self.config.channels, *self.config.image_size), reader="encoder")
        x = self.patches(to_patches(images, self.config.patch_size) * 2 - 1) + self.position
        if mask is not None and mask.num_kept < x.shape[1]:
            x = x.gather(1, mask.kept_index[..., None].expand(-1, -1, x.shape[2]))
        first = self.class_token.expand(x.shape[0], -1, -1)  # len() would fix the number of images in exports
        return torch.cat([first.to(x.dtype), x], dim=1)

    def features(self, images: Float[Tensor, "n c H W"], pool: Pool = "mean") -> Float[Tensor, "n f"]:
        """Like MAGE's: mean of the last block's patches, layer-normalised; the class token; both; or last4."""
        return features_of(self.embed(images), self.blocks, pool, self.norm)


def to_patches(images: Float[Tensor, "n c H W"], size: int) -> Float[Tensor, "n l q"]:
    """Images -> patches row by row; the pixels of a patch are ordered channels first."""
    return functional.pixel_unshuffle(images, size).flatten(2).transpose(1, 2)
