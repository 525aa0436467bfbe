"""VQGAN in the MaskGIT layout: a convolutional encoder and decoder around a codebook (paper, section 3.1 and 4.1).

The layout is that of the released tokenizers, with every size configurable. Two details come from them: the shortcut
of a residual block that changes width sees the block's output, and levels are joined by average pooling. `patch_size`
is an addition: it folds pixels into channels before the first convolution, so that small models skip the costly full
resolution; 1 is the paper's network.

Letters: n images, c channels, H W pixels, d code width, h w tokens.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage.nn.norms import GroupNorm, added, in_fast_layout
from mage.nn.precision import in_full
from mage.tokenizers.base import check_images, weights_fingerprint
from mage.tokenizers.quantizers import QuantizerConfig, build_quantizer


@dataclass(frozen=True)
class VQGANConfig:
    """Sizes of a VQGAN; the defaults are the paper's."""

    image_size: tuple[int, int] = (256, 256)
    """Height and width in pixels."""
    channels: int = 3
    """Channels of an image: 1 grey, 3 RGB, or any other number."""
    width: int = 128
    """Channels of the convolutions at full resolution."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width of each level as a multiple of `width`; each further level halves the resolution."""
    blocks: int = 2
    """Residual blocks per level of the encoder."""
    decoder_blocks: int = 2
    """Residual blocks per level of the decoder."""
    middle_blocks: int = 2
    """Residual blocks at the lowest resolution, between the levels and the codes."""
    code_width: int = 256
    """Length of a code vector."""
    patch_size: int = 1
    """Pixels per side that are folded into channels before the first convolution."""
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    """The codebook."""

    def __post_init__(self) -> None:
        if self.patch_size < 1 or not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"patch_size {self.patch_size} and multipliers {self.multipliers} must be positive")
        if len(self.image_size) != 2:
            raise ValueError(f"image_size takes height and width, not {self.image_size}")
        if min(self.image_size) < 1 or any(side % self.stride for side in self.image_size):
            better = tuple(max(1, round(side / self.stride)) * self.stride for side in self.image_size)
            raise ValueError(
                f"image size {self.image_size} is not a multiple of the stride {self.stride}; try {better}"
            )

    @property
    def stride(self) -> int:
        """Pixels per token and side."""
        return self.patch_size << len(self.multipliers) - 1

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the token grid."""
        return self.image_size[0] // self.stride, self.image_size[1] // self.stride

    @property
    def level_widths(self) -> list[int]:
        """Width of each level, the highest resolution first."""
        return [self.width * multiplier for multiplier in self.multipliers]


def _norm(width: int) -> GroupNorm:
    return GroupNorm(math.gcd(32, width), width, eps=1e-6)


class ResidualBlock(nn.Module):
    """GroupNorm - SiLU - 3x3 convolution, twice, plus a shortcut."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.norm1 = _norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)
        self.norm2 = _norm(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(width_out, width_out, 1, bias=False) if width_in != width_out else None

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Same resolution, `width_out` channels."""
        h: Tensor = self.conv1(self.norm1.with_silu(x))
        h = self.conv2(self.norm2.with_silu(h))
        # The released networks apply the shortcut to the block's own output, not to its input.
        return added(x if self.shortcut is None else self.shortcut(h), h)


class Encoder(nn.Module):
    """Images -> one vector per token."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        widths = config.level_widths
        self.stem = nn.Conv2d(config.channels * config.patch_size**2, config.width, 3, padding=1, bias=False)
        self.levels = nn.ModuleList()
        width = config.width
        for level_width in widths:
            blocks = [ResidualBlock(width if i == 0 else level_width, level_width) for i in range(config.blocks)]
            self.levels.append(nn.Sequential(*blocks))
            width = level_width
        self.middle = nn.Sequential(*(ResidualBlock(width, width) for _ in range(config.middle_blocks)))
        self.norm = _norm(width)
        self.out = nn.Conv2d(width, config.code_width, 1)

    def forward(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n d h w"]:
        """Images in [0, 1] -> latent vectors, not yet quantized."""
        x = functional.pixel_unshuffle(images, self.patch_size) if self.patch_size > 1 else images
        x = self.stem(in_fast_layout(x))
        for index, level in enumerate(self.levels):
            x = level(functional.avg_pool2d(x, 2) if index else x)
        latent: Tensor = self.out(self.norm.with_silu(self.middle(x)))
        return latent


class Decoder(nn.Module):
    """One vector per token -> images."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        width = config.level_widths[-1]
        self.stem = nn.Conv2d(config.code_width, width, 3, padding=1)
        self.middle = nn.Sequential(*(ResidualBlock(width, width) for _ in range(config.middle_blocks)))
        self.levels = nn.ModuleList()
        self.upsample = nn.ModuleList()
        for index, level_width in enumerate(reversed(config.level_widths)):
            if index:
                self.upsample.append(nn.Conv2d(width, width, 3, padding=1))
            sizes = [(width if i == 0 else level_width, level_width) for i in range(config.decoder_blocks)]
            self.levels.append(nn.Sequential(*(ResidualBlock(*size) for size in sizes)))
            width = level_width
        self.norm = _norm(width)
        self.out = nn.Conv2d(width, config.channels * config.patch_size**2, 3, padding=1)

    def forward(self, vectors: Float[Tensor, "n d h w"]) -> Float[Tensor, "n c H W"]:
        """Code vectors -> images, not clamped."""
        x = self.middle(self.stem(in_fast_layout(vectors)))
        for index, level in enumerate(self.levels):
            if index:
                x = self.upsample[index - 1](functional.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = level(x)
        images: Tensor = self.out(self.norm.with_silu(x))
        return functional.pixel_shuffle(images, self.patch_size) if self.patch_size > 1 else images


class VQGANOutput(NamedTuple):
    """Outputs of one training pass."""

    reconstruction: Float[Tensor, "n c H W"]
    """Raw output of the decoder: about, but not strictly, within [0, 1]."""
    ids: Int[Tensor, "n h w"]
    quantizer_loss: Float[Tensor, ""]


class VQGAN(nn.Module):
    """Tokenizer with a learned codebook. `encode` and `decode` are what users call; `forward` is for training."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantizer = build_quantizer(config.quantizer, config.code_width)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.config.channels

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        return self.config.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the token grid."""
        return self.config.grid

    @property
    def num_codes(self) -> int:
        """Ids are 0 to num_codes - 1."""
        return self.config.quantizer.num_codes

    def check_images(self, images: Tensor) -> None:
        """Raise ValueError unless `images` has this tokenizer's shape and is floating point."""
        check_images(images, (self.channels, *self.image_size))

    def encode(self, images: Float[Tensor, "n c H W"]) -> Int[Tensor, "n h w"]:
        """Images in [0, 1] -> ids. Raises ValueError for another shape."""
        return self.quantizer.ids(self.latent(images))

    def latent(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n d h w"]:
        """The vectors before quantization, with gradients. Raises ValueError for another shape."""
        self.check_images(images)
        latents: Tensor = self.encoder(images)
        return latents

    def affinity(self, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        """Similarity of vectors to each word; larger is nearer."""
        return self.quantizer.affinity(vectors)

    def decode_raw(self, ids: Int[Tensor, "n h w"]) -> Float[Tensor, "n c H W"]:
        """Ids -> the decoder's output, not clamped; it can leave [0, 1] where contrast is high."""
        pixels: Tensor = self.decoder(self.quantizer.lookup(ids)).float()
        return pixels

    def decode(self, ids: Int[Tensor, "n h w"]) -> Float[Tensor, "n c H W"]:
        """Ids -> images in [0, 1]."""
        return self.decode_raw(ids).clamp(0, 1)

    def forward(self, images: Float[Tensor, "n c H W"], instead: Int[Tensor, "n h w"] | None = None) -> VQGANOutput:
        """Encode, quantize and decode, with gradients. instead: ids to decode in place of the images' own."""
        if instead is not None:
            return VQGANOutput(self.decoder(self.quantizer.lookup(instead)), instead, images.new_zeros(()))
        latent = in_full(self.encoder(images))
        with torch.autocast(images.device.type, enabled=False):  # distances, means and entropies need all digits
            quantized = self.quantizer(latent)
        return VQGANOutput(self.decoder(quantized.vectors), quantized.ids, quantized.loss)

    def fingerprint(self) -> str:
        """Hash of all weights that determine ids, and of how words are chosen."""
        deciding = {f"encoder.{name}": tensor for name, tensor in self.encoder.state_dict().items()}
        deciding |= {f"quantizer.{name}": tensor for name, tensor in self.quantizer.deciding().items()}
        return weights_fingerprint(deciding, self.quantizer.rule())
