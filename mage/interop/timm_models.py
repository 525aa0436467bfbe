"""Models by timm's names: `import mage.interop.timm_models`, then `timm.create_model("mage_digits", pretrained=True)`.

mage_digits, ...   the packaged models
mage               any model or run folder: `timm.create_model("mage", model="runs/photos", pretrained=True)`

Without `pretrained` the encoder has random weights; the tokenizer, which defines what the encoder reads, is always the
model's own.
"""

import copy
from pathlib import Path
from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models._features import FeatureGetterNet
from torch import nn

from mage.interop.timm_encoder import TimmEncoder
from mage.pipeline import Mage
from mage.store import folder as store
from mage.store import packaged


def _cfg(channels: int, size: tuple[int, int]) -> dict[str, Any]:
    """timm's description of the input; pixels are scaled to cover it, as the library does itself, to [-1, 1]."""
    return {
        "input_size": (channels, *size),
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": (0.5,) * channels,
        "std": (0.5,) * channels,
        "num_classes": 0,
        "pool_size": None,
        "first_conv": None,
        "classifier": "head",
        "license": "mit",
        "paper_ids": "arXiv:2211.09117",
        "paper_name": "MAGE: MAsked Generative Encoder to Unify Representation Learning and Image Synthesis",
    }


default_cfgs = generate_default_cfgs(
    {
        f"mage_{name}": _cfg(channels, (side, side)) | {"file": str(packaged.FOLDER / name / store.TRANSFORMER)}
        for name, channels, side in (("digits", 1, 28), ("cifar10", 3, 32), ("emoji64", 3, 64))
    }
)


def create(
    name: str,
    model: str | Path | Mage,
    pretrained: bool,
    *,
    in_chans: int | None = None,
    features_only: bool = False,
    out_indices: Any = 3,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    img_size: int | tuple[int, int] | None = None,
    cache_dir: Any = None,
    **kwargs: Any,
) -> TimmEncoder | FeatureGetterNet:
    """The encoder of a model with timm's interface, in float32 on the CPU and in training mode.

    in_chans: channels of the images, 1 or 3, converted to the model's; default: the model's. features_only: a network
    that gives maps of the blocks `out_indices`, or of the last so many. cache_dir: unused, as nothing is downloaded.
    Other arguments: those of `TimmEncoder`. A loaded model is copied. Raises ValueError for another `img_size` than
    the model's.
    """
    parts = copy.deepcopy(model.parts) if isinstance(model, Mage) else store.read(model)
    for network in (parts.tokenizer, parts.transformer):
        if isinstance(network, nn.Module):
            network.float()
    loaded = Mage.of(parts, precision="float32", device="cpu")
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size or loaded.image_size)
    if size != tuple(loaded.image_size):
        height, width = loaded.image_size
        raise ValueError(f"the images of this model have {height} x {width} pixels, not {size[0]} x {size[1]}")
    if not pretrained:
        random = store.build_transformer(store.transformer_dict(loaded.require_transformer()))
        loaded = Mage(loaded.tokenizer, random, notes=loaded.notes, precision="float32", device="cpu")
    loaded.require_transformer().requires_grad_(True)  # read networks have none
    cfg = _cfg(in_chans or loaded.channels, loaded.image_size) | {"architecture": name}
    if pretrained_cfg:
        raise ValueError("change single entries with pretrained_cfg_overlay, such as dict(mean=(0.0,), std=(1.0,))")
    encoder = TimmEncoder(loaded, cfg | (pretrained_cfg_overlay or {}), **kwargs)
    encoder.pretrained_cfg["num_classes"] = encoder.num_classes
    encoder.train()
    return FeatureGetterNet(encoder, out_indices=out_indices) if features_only else encoder


@register_model
def mage_digits(pretrained: bool = False, **kwargs: Any) -> TimmEncoder | FeatureGetterNet:
    """The packaged model of handwritten digits, 1 x 28 x 28 pixels."""
    return create("mage_digits", "digits", pretrained, **kwargs)


@register_model
def mage_cifar10(pretrained: bool = False, **kwargs: Any) -> TimmEncoder | FeatureGetterNet:
    """The packaged model of CIFAR-10's photographs, 3 x 32 x 32 pixels."""
    return create("mage_cifar10", "cifar10", pretrained, **kwargs)


@register_model
def mage_emoji64(pretrained: bool = False, **kwargs: Any) -> TimmEncoder | FeatureGetterNet:
    """The packaged model of emoji, 3 x 64 x 64 pixels."""
    return create("mage_emoji64", "emoji64", pretrained, **kwargs)


@register_model
def mage(pretrained: bool = False, *, model: str | Path | Mage = "digits", **kwargs: Any) -> Any:
    """The model in a folder, or one that is already loaded."""
    return create("mage", model, pretrained, **kwargs)
