"""The VQGAN of taming-transformers, latent diffusion and diffusers' `VQModel`, for tokenizers trained elsewhere.

Unlike the network of `vqgan.py` it has attention at low resolutions, strided convolutions between levels, the usual
shortcut, 1x1 convolutions on both sides of the codebook, and pixels in [-1, 1] (Esser et al. 2021). Parameters are
named as in taming's files.

Letters: n images, c channels, H W pixels, d code width, h w tokens.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage.nn.norms import GroupNorm, added
from mage.tokenizers.base import check_images, weights_fingerprint
from mage.tokenizers.quantizers.base import rows
from mage.tokenizers.quantizers.life import negative_distances


@dataclass(frozen=True)
class LDMConfig:
    """Sizes; the defaults are taming's VQGAN with 1,024 codes on ImageNet (stride 16)."""

    image_size: tuple[int, int] = (256, 256)
    """Height and width in pixels; the weights fit any multiple of the stride."""
    channels: int = 3
    """Channels of an image."""
    width: int = 128
    """Channels at full resolution."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width of each level as a multiple of `width`; each further level halves the resolution."""
    blocks: int = 2
    """Residual blocks per level; the decoder has one more."""
    encoder_attention: tuple[int, ...] = (4,)
    """Levels of the encoder, from 0 at full resolution, whose blocks are followed by attention."""
    decoder_attention: tuple[int, ...] = (4,)
    """Levels of the decoder followed by attention, counted in the same way."""
    middle_attention: bool = True
    """Attention between the two blocks at the lowest resolution."""
    latent_width: int = 256
    """Channels between the networks and the 1x1 convolutions."""
    code_width: int = 256
    """Length of a code vector."""
    num_codes: int = 1024
    """Number of words in the codebook."""
    groups: int = 32
    """Groups of the GroupNorms."""

    def __post_init__(self) -> None:
        if any(side % self.stride for side in self.image_size):
            raise ValueError(f"image size {self.image_size} is not a multiple of the stride {self.stride}")

    @property
    def stride(self) -> int:
        """Pixels per token and side."""
        return 1 << len(self.multipliers) - 1


class _Block(nn.Module):
    """GroupNorm - SiLU - 3x3 convolution, twice, plus the input (through a 1x1 convolution if the width changes)."""

    def __init__(self, narrow: int, wide: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, narrow, eps=1e-6)
        self.conv1 = nn.Conv2d(narrow, wide, 3, padding=1)
        self.norm2 = GroupNorm(groups, wide, eps=1e-6)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(narrow, wide, 1) if narrow != wide else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.norm1.with_silu(x))
        h = self.conv2(self.norm2.with_silu(h))
        return added(self.nin_shortcut(x), h)


class _Attention(nn.Module):
    """One head over all positions."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, width, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # with a dimension of one head, which the conversion to ONNX requires
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        seen = functional.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
        out: Tensor = x + self.proj_out(seen)
        return out


class _Resample(nn.Module):
    """Halve with a strided convolution, padded on the right and below only, or double by repeating pixels."""

    def __init__(self, width: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(width, width, 3, stride=2) if down else nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, (0, 1, 0, 1)) if self.down else functional.interpolate(x, scale_factor=2.0)
        out: Tensor = self.conv(x)
        return out


class _Level(nn.Module):
    """Blocks, each followed by attention if the level has it, then a change of resolution before the next level."""

    def __init__(self, narrow: int, wide: int, count: int, groups: int, *, attention: bool, resample: str) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Block(narrow if i == 0 else wide, wide, groups) for i in range(count))
        self.attn = nn.ModuleList(_Attention(wide, groups) for _ in range(count if attention else 0))
        if resample == "down":
            self.downsample = _Resample(wide, down=True)
        elif resample == "up":
            self.upsample = _Resample(wide, down=False)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        if self.resample == "down":
            smaller: Tensor = self.downsample(x)
            return smaller
        return self.upsample(x) if self.resample == "up" else x


class _Middle(nn.Module):
    def __init__(self, width: int, groups: int, *, attention: bool) -> None:
        super().__init__()
        self.block_1 = _Block(width, width, groups)
        self.attn_1 = _Attention(width, groups) if attention else nn.Identity()
        self.block_2 = _Block(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class _Encoder(nn.Module):
    def __init__(self, config: LDMConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.down = nn.ModuleList(
            _Level(
                widths[max(0, level - 1)] if level else config.width, wide, config.blocks, config.groups,
                attention=level in config.encoder_attention, resample="down" if level < last else "",
            )
            for level, wide in enumerate(widths)
        )  # fmt: skip
        self.mid = _Middle(widths[-1], config.groups, attention=config.middle_attention)
        self.norm_out = GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.latent_width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(self.norm_out.with_silu(self.mid(x)))
        return out


class _Decoder(nn.Module):
    def __init__(self, config: LDMConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.latent_width, widths[-1], 3, padding=1)
        self.mid = _Middle(widths[-1], config.groups, attention=config.middle_attention)
        self.up = nn.ModuleList(
            _Level(
                widths[min(last, level + 1)], wide, config.blocks + 1, config.groups,
                attention=level in config.decoder_attention, resample="up" if level else "",
            )
            for level, wide in enumerate(widths)
        )  # fmt: skip
        self.norm_out = GroupNorm(config.groups, widths[0], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0], config.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(self.norm_out.with_silu(x))
        return out


class _Codebook(nn.Module):
    def __init__(self, num_codes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_codes, width)


class LDMTokenizer(nn.Module):
    """A tokenizer that was trained elsewhere; it encodes and decodes, and cannot be trained here."""

    def __init__(self, config: LDMConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = _Encoder(config), _Decoder(config)
        self.quantize = _Codebook(config.num_codes, config.code_width)
        self.quant_conv = nn.Conv2d(config.latent_width, config.code_width, 1)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.latent_width, 1)

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
        height, width = self.config.image_size
        return height // self.config.stride, width // self.config.stride

    @property
    def num_codes(self) -> int:
        """Ids are 0 to num_codes - 1."""
        return self.config.num_codes

    def encode(self, images: Float[Tensor, "n c H W"]) -> Int[Tensor, "n h w"]:
        """Images in [0, 1] -> ids. Raises ValueError for another shape."""
        latent = self.latent(images).float()
        with torch.autocast(latent.device.type, enabled=False):
            ids = self.affinity(rows(latent)).argmax(dim=1)
        return ids.view(latent.shape[0], *self.grid)  # len() would fix the number of images in exports

    def latent(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n d h w"]:
        """The vectors before quantization, with gradients. Raises ValueError for another shape."""
        check_images(images, (self.channels, *self.image_size))
        latents: Tensor = self.quant_conv(self.encoder(images * 2 - 1))
        return latents

    def affinity(self, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        """Negative squared distances from each word, up to a constant per vector."""
        return negative_distances(vectors, self.quantize.embedding.weight.float())

    def decode(self, ids: Int[Tensor, "n h w"]) -> Float[Tensor, "n c H W"]:
        """Ids -> images in [0, 1]."""
        vectors = self.quantize.embedding(ids).permute(0, 3, 1, 2)
        images: Tensor = self.decoder(self.post_quant_conv(vectors)).float()
        return ((images + 1) / 2).clamp(0, 1)

    def fingerprint(self) -> str:
        """Hash of all weights that determine ids."""
        deciding = ("encoder.", "quant_conv.", "quantize.")
        return weights_fingerprint({n: t for n, t in self.state_dict().items() if n.startswith(deciding)})
