"""Reads tokenizers trained elsewhere: taming-transformers' VQGAN files and diffusers' `VQModel` folders.

Both hold the network of `tokenizers/ldm.py`; taming's names are ours, diffusers' are translated. Files are read as
data: no code in them is run. Sizes come from the tensors; the image size, which no tensor shows, comes from the
caller (taming) or from config.json (diffusers).
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mage.checkpoints.pickles import check_tensors, unpickle
from mage.store.fitting import read_tensors
from mage.store.parts import ModelParts
from mage.tokenizers.ldm import LDMConfig, LDMTokenizer

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_DIFFUSERS = (
    (r"^(encoder|decoder)\.conv_norm_out\.", r"\1.norm_out."),
    (r"^(encoder|decoder)\.mid_block\.resnets\.0\.", r"\1.mid.block_1."),
    (r"^(encoder|decoder)\.mid_block\.resnets\.1\.", r"\1.mid.block_2."),
    (r"^(encoder|decoder)\.mid_block\.attentions\.0\.", r"\1.mid.attn_1."),
    (r"^encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.down.\1.block."),
    (r"^encoder\.down_blocks\.(\d+)\.attentions\.", r"encoder.down.\1.attn."),
    (r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"(\.attn(?:_1|\.\d+))\.group_norm\.", r"\1.norm."),
    (r"(\.attn(?:_1|\.\d+))\.(?:to_q|query)\.", r"\1.q."),
    (r"(\.attn(?:_1|\.\d+))\.(?:to_k|key)\.", r"\1.k."),
    (r"(\.attn(?:_1|\.\d+))\.(?:to_v|value)\.", r"\1.v."),
    (r"(\.attn(?:_1|\.\d+))\.(?:to_out\.0|proj_attn)\.", r"\1.proj_out."),
)
_UP = re.compile(r"^decoder\.up_blocks\.(\d+)\.(resnets|attentions|upsamplers\.0)\.")
_PARTS = {"resnets": "block", "attentions": "attn", "upsamplers.0": "upsample"}


INERT = ("pytorch_lightning.", "lightning.", "omegaconf.")
"""Libraries whose objects such files may contain; these objects are ignored."""


def is_taming_file(path: Path) -> bool:
    """Whether a file's tensors are those of taming's VQGAN; False for files that cannot be read."""
    try:
        return _is_taming(_state(path))
    except ValueError:
        return False


def _state(path: Path) -> dict[str, Any]:
    content = unpickle(path, inert=INERT)
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return state if isinstance(state, dict) else {}


def _is_taming(state: Mapping[str, Any]) -> bool:
    return any(str(name).startswith("quant_conv.") for name in state) and "encoder.conv_in.weight" in state


def is_diffusers(folder: Path) -> bool:
    """Whether a folder holds a diffusers model."""
    try:
        return "_class_name" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def read_taming(path: str | Path, *, image_size: tuple[int, int] = (256, 256)) -> ModelParts:
    """A taming-transformers or latent-diffusion VQGAN checkpoint. Raises ValueError for anything else."""
    state = _state(Path(path))
    if not _is_taming(state):
        raise ValueError(f"{path} is not a taming VQGAN: it has no quant_conv and encoder.conv_in")
    if "quantize.proj.weight" in state or "quantize.embed.weight" in state:
        raise ValueError(f"{path} has a Gumbel quantizer, which this library does not read; take a VQ model")
    # The discriminator and the perceptual network of its training are not part of the tokenizer.
    state = {name: tensor for name, tensor in state.items() if not name.startswith(("loss.", "model_ema."))}
    return _build(str(path), state, image_size)


def read_diffusers(folder: str | Path, *, image_size: tuple[int, int] | None = None) -> ModelParts:
    """A folder that diffusers' `VQModel.save_pretrained` wrote. Raises ValueError for anything else."""
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
    except RecursionError:
        config = None
    if not isinstance(config, dict):
        raise ValueError(f"{folder / 'config.json'} does not hold settings")
    if config.get("_class_name") != "VQModel":
        raise ValueError(f"{folder} holds a {config.get('_class_name')}, not a VQModel")
    unusual = {"norm_type": "group", "act_fn": "silu", "lookup_from_codebook": False}
    for name, usual in unusual.items():
        if config.get(name, usual) != usual:
            raise ValueError(f"{folder} has {name}={config[name]!r}; this library only reads {name}={usual!r}")
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise ValueError(f"{folder} holds no weights: expected {' or '.join(WEIGHTS)}")
    state = read_tensors(file) if file.suffix == ".safetensors" else unpickle(file)
    check_tensors(file, state)
    last = max((int(match[1]) for name in state if (match := _UP.match(name))), default=0)
    renamed = {_taming_name(name, last): tensor for name, tensor in state.items()}
    for name, tensor in renamed.items():  # attention is a convolution there and a matrix here
        if re.search(r"\.attn(_1|\.\d+)\.(q|k|v|proj_out)\.weight$", name) and tensor.ndim == 2:
            renamed[name] = tensor[:, :, None, None]
    side, groups = config.get("sample_size", 256), config.get("norm_num_groups", 32)
    size = image_size or (tuple(side) if isinstance(side, list) else (side, side))
    if len(size) != 2 or any(type(number) is not int or not 0 < number < 2**16 for number in (*size, groups)):
        raise ValueError(f"{folder} has sample_size {side!r} and norm_num_groups {groups!r}")
    return _build(str(folder), renamed, size, groups=groups)


def _taming_name(name: str, last: int) -> str:
    """diffusers counts the decoder's levels from the lowest resolution, taming from the highest."""
    if match := _UP.match(name):
        return _rename(f"decoder.up.{last - int(match[1])}.{_PARTS[match[2]]}." + name[match.end() :])
    return _rename(name)


def _rename(name: str) -> str:
    for pattern, replacement in _DIFFUSERS:
        name = re.sub(pattern, replacement, name)
    return name


def _build(where: str, state: dict[str, Tensor], image_size: tuple[int, int], *, groups: int = 32) -> ModelParts:
    try:
        config = _sizes(state, image_size, groups)
        with torch.device("meta"):
            tokenizer = LDMTokenizer(config)
        expected = tokenizer.state_dict()
        wrong = sorted(state.keys() ^ expected.keys())
        wrong += [name for name in state.keys() & expected.keys() if state[name].shape != expected[name].shape]
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise ValueError(f"tensors are missing, unknown or of another shape: {', '.join(wrong[:3])}{more}")
        tokenizer.to_empty(device="cpu").load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except (LookupError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{where} does not hold a VQGAN that this library can read: {error}") from None
    return ModelParts(tokenizer, None, {"converted": {"from": Path(where).name}})


def _sizes(state: Mapping[str, Tensor], image_size: tuple[int, int], groups: int) -> LDMConfig:
    """The sizes of a tokenizer, from the shapes of its tensors."""

    def count(pattern: str) -> int:
        return 1 + max((int(match[1]) for name in state if (match := re.match(pattern, name))), default=-1)

    levels, width = count(r"encoder\.down\.(\d+)\."), state["encoder.conv_in.weight"].shape[0]
    widths = [state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)]

    def attention(half: str) -> tuple[int, ...]:
        return tuple(level for level in range(levels) if f"{half}.{level}.attn.0.q.weight" in state)

    return LDMConfig(
        image_size=image_size,
        channels=state["encoder.conv_in.weight"].shape[1],
        width=width,
        multipliers=tuple(each // width for each in widths),
        blocks=count(r"encoder\.down\.0\.block\.(\d+)\."),
        encoder_attention=attention("encoder.down"),
        decoder_attention=attention("decoder.up"),
        middle_attention="encoder.mid.attn_1.q.weight" in state,
        latent_width=state["encoder.conv_out.weight"].shape[0],
        code_width=state["quantize.embedding.weight"].shape[1],
        num_codes=state["quantize.embedding.weight"].shape[0],
        groups=groups,
    )
