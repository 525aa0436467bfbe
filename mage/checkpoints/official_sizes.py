"""Sizes of the network in a released file, read from its tensors, which show all but head counts and word ids.

The pickled `args` are ignored: in the released files they describe another model than the stored one. Values that the
tensors do not show come from a configuration with the public port's keys; where it repeats a size that they do show,
both must agree.
"""

import math
import re
from typing import Any

from torch import Tensor

from mage.models import MAGEConfig
from mage.models.presets import PRESETS
from mage.tokenizers import QuantizerConfig, VQGANConfig
from mage.vocabulary import Vocabulary

State = dict[str, Tensor]
PUBLISHED = tuple(PRESETS[name] for name in ("base", "large", "huge"))
PUBLISHED_IMAGE_SIZE = 256

_VQGAN_KEYS = ("ch", "ch_mult", "num_res_blocks", "z_channels", "embed_dim", "n_embed", "in_channels", "out_ch")
_KEYS = (
    "image_size",
    "patch_size",
    "embed_dim",
    "depth",
    "num_heads",
    "decoder_embed_dim",
    "decoder_depth",
    "decoder_num_heads",
    "mlp_ratio",
    "vocab_size",
    "codebook_size",
    "fake_class_label",
    "mask_token_label",
    "mask_ratio_min",
    "vqgan",
)


class Settings:
    """The user's configuration: the source of values that tensors do not show, and compared with those they do."""

    def __init__(self, values: dict[str, Any] | None, keys: tuple[str, ...] = _KEYS, where: str = "config") -> None:
        """Raises ValueError for an unknown key."""
        values = {} if values is None else values
        if not isinstance(values, dict):
            raise ValueError(f"the {where} must be a mapping of names to values, not {values!r}")
        unknown = [str(key) for key in values if key not in keys]
        if unknown:
            raise ValueError(f"the {where} has an unknown key {unknown[0]!r}; known are {', '.join(keys)}")
        self.values, self.where = values, where

    @property
    def vqgan(self) -> "Settings":
        """The part about the tokenizer."""
        return Settings(self.values.get("vqgan"), _VQGAN_KEYS, f"{self.where}.vqgan")

    def agree(self, key: str, size: Any) -> None:
        """Raise ValueError if the configuration and the tensors disagree."""
        configured = self.values.get(key, size)
        if configured != size:
            raise ValueError(f"the {self.where} says {key} = {configured}, the tensors say {size}")

    def number(self, key: str, reason: str) -> int:
        """A positive integer that no tensor shows; `reason`: beginning of the error if it is missing."""
        if key not in self.values:
            raise ValueError(f"{reason}: give {key} in a configuration (--config FILE.json)")
        value = self.values[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key} in the {self.where} must be a positive integer, not {value!r}")
        return value

    def image_size(self) -> tuple[int, int] | None:
        """Height and width in pixels, or None."""
        if "image_size" not in self.values:
            return None
        value = self.values["image_size"]
        pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
        if len(pair) != 2 or any(not isinstance(side, int) or isinstance(side, bool) or side < 1 for side in pair):
            raise ValueError(f"image_size in the {self.where} must be one or two positive integers, not {value!r}")
        return pair[0], pair[1]


def vqgan_config(state: State, settings: Settings, grid: tuple[int, int] | None) -> VQGANConfig:
    """The tokenizer's sizes; the image size follows from `grid`; without one it is the configuration's, else 256."""
    width, channels = _shape(state, "encoder.conv_in.weight", 4)[:2]
    num_codes, code_width = _shape(state, "quantize.embedding.weight", 2)
    levels = _count(state, r"encoder\.down\.(\d+)\.")
    level_widths = [_shape(state, f"encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)]
    if not levels or any(level % width for level in level_widths):
        raise ValueError(f"the tokenizer's levels are {level_widths} wide, not multiples of its first width {width}")
    multipliers = tuple(level // width for level in level_widths)
    blocks = _count(state, r"encoder\.down\.0\.block\.(\d+)\.")
    stride = 2 ** (levels - 1)
    configured_size = settings.image_size()
    size = (PUBLISHED_IMAGE_SIZE, PUBLISHED_IMAGE_SIZE) if configured_size is None else configured_size
    if grid is not None:
        size = (grid[0] * stride, grid[1] * stride)
        if configured_size not in (None, size):
            raise ValueError(
                f"the config says image_size = {configured_size}, the tensors say {size}: {grid} tokens of {stride}"
            )
    settings.agree("patch_size", stride)
    settings.agree("codebook_size", num_codes)
    part = settings.vqgan
    if isinstance(part.values.get("ch_mult"), list | tuple):
        part.agree("ch_mult", type(part.values["ch_mult"])(multipliers))
    sizes = {"ch": width, "num_res_blocks": blocks, "embed_dim": code_width, "z_channels": code_width}
    for key, value in {**sizes, "n_embed": num_codes, "in_channels": channels, "out_ch": channels}.items():
        part.agree(key, value)
    return VQGANConfig(
        image_size=size,
        channels=channels,
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        decoder_blocks=_count(state, r"decoder\.up\.0\.block\.(\d+)\."),
        middle_blocks=_count(state, r"encoder\.mid\.block_(\d+)\."),
        code_width=code_width,
        quantizer=QuantizerConfig(kind="vq", num_codes=num_codes),
    )


def mage_config(state: State, settings: Settings) -> MAGEConfig:
    """Sizes of encoder and decoder. A classifier has no decoder: there its sizes are the encoder's."""
    width = _shape(state, "token_emb.word_embeddings.weight", 2)[1]
    depth = _count(state, r"blocks\.(\d+)\.")
    mlp_ratio = _shape(state, "blocks.0.mlp.fc1.weight", 2)[0] / width
    for key, value in {"embed_dim": width, "depth": depth, "mlp_ratio": mlp_ratio}.items():
        settings.agree(key, value)
    heads = _heads(settings, "num_heads", width, {size.width: size.heads for size in PUBLISHED})
    if "decoder_embed.weight" not in state:
        return MAGEConfig(width, depth, heads, decoder_width=width, decoder_heads=heads, mlp_ratio=mlp_ratio)
    decoder_width = _shape(state, "decoder_embed.weight", 2)[0]
    decoder_depth = _count(state, r"decoder_blocks\.(\d+)\.")
    settings.agree("decoder_embed_dim", decoder_width)
    settings.agree("decoder_depth", decoder_depth)
    published = {size.decoder_width: size.decoder_heads for size in PUBLISHED}
    return MAGEConfig(
        width,
        depth,
        heads,
        decoder_width=decoder_width,
        decoder_depth=decoder_depth,
        decoder_heads=_heads(settings, "decoder_num_heads", decoder_width, published),
        mlp_ratio=mlp_ratio,
    )


def token_grid(state: State, settings: Settings) -> tuple[int, int]:
    """Height and width of the token grid: square, as released."""
    length = _shape(state, "token_emb.position_embeddings.weight", 2)[0] - 1
    side = math.isqrt(length)
    if side * side != length or not side:
        raise ValueError(f"the file has positions for {length} tokens; released grids are square")
    size, patch = settings.image_size(), settings.values.get("patch_size")
    if size is not None and isinstance(patch, int) and size != (side * patch, side * patch):
        raise ValueError(f"the config says {size} pixels in patches of {patch}, the tensors say {side} x {side} tokens")
    return side, side


def read_vocabulary(state: State, settings: Settings, num_codes: int | None) -> Vocabulary:
    """The released layout if the number of words is that of the release, else the configuration's ids.

    `num_codes` is the tokenizer's number of codes, None without one.
    """
    size = _shape(state, "token_emb.word_embeddings.weight", 2)[0]
    settings.agree("vocab_size", size)
    released = Vocabulary.released()
    if size == released.size and num_codes in (None, released.num_codes):
        settings.agree("codebook_size", released.num_codes)
        settings.agree("fake_class_label", released.null_class_id)
        settings.agree("mask_token_label", released.mask_id)
        return released
    reason = f"{size} words are not the released layout, and no tensor shows their meaning"
    codes = num_codes if num_codes is not None else settings.number("codebook_size", reason)
    mask = settings.number("mask_token_label", reason)
    null = settings.number("fake_class_label", reason)
    return Vocabulary(num_codes=codes, num_classes=max(0, mask - codes), null_class_id=null, mask_id=mask, size=size)


def _heads(settings: Settings, key: str, width: int, published: dict[int, int]) -> int:
    if key not in settings.values and width in published:
        return published[width]
    widths = ", ".join(map(str, published))
    return settings.number(key, f"tensors do not show head counts, and width {width} is not a published one ({widths})")


def _shape(state: State, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(f"the file lacks the tensor {name}")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{name} has shape {shape}; released files have {dimensions} dimensions there, none empty")
    return shape


def _count(state: State, pattern: str) -> int:
    """Count of different numbers in the names that match `pattern`."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})
