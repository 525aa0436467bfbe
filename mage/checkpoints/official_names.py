"""Names of our tensors in the released files: one map, used in both directions.

The names are those of the public PyTorch port and of the taming layout for the tokenizer. No other file knows them,
except for `official_sizes.py`, which reads sizes from some of them.
"""

import re

import torch
from torch import Tensor, nn

from mage.models import MAGEClassifier, MAGETransformer
from mage.tokenizers import VQGAN

VQGAN_PREFIX = "vqgan."
"""Prefix of the tokenizer's names in a MAGE file."""

UNUSED = frozenset(
    (
        "cls_token",
        "pos_embed",
        "mask_token",
        "decoder_pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "decoder_pred.weight",
        "decoder_pred.bias",
        "token_emb.position_ids",
    )
)
"""Tensors in released files that the method does not use."""

_WORD_BIAS = "mlm_layer.bias"

_TRANSFORMER = (
    (r"encoder\.embedding\.word\.", "token_emb.word_embeddings."),
    (r"encoder\.embedding\.position\.", "token_emb.position_embeddings."),
    (r"encoder\.embedding\.norm\.", "token_emb.LayerNorm."),
    (r"encoder\.(blocks|norm)\.", r"\1."),
    (r"decoder_position$", "decoder_pos_embed_learned"),
    (r"(decoder_embed|decoder_blocks|decoder_norm)\.", r"\1."),
)
_TOKEN_HEAD = ((r"head\.linear\.", "mlm_layer.fc."), (r"head\.norm\.", "mlm_layer.ln."), (r"head\.bias$", _WORD_BIAS))
_LINEAR_HEAD = ((r"feature_norm\.", "fc_norm."), (r"head\.", "head."))
_BATCHNORM_HEAD = ((r"feature_norm\.", "fc_norm."), (r"head_norm\.", "head.0."), (r"head\.", "head.1."))
_TOKENIZER = (
    (r"quantizer\.codebook$", "quantize.embedding.weight"),
    (r"(encoder|decoder)\.stem\.", r"\1.conv_in."),
    (r"(encoder|decoder)\.norm\.", r"\1.norm_out."),
    (r"(encoder|decoder)\.out\.", r"\1.conv_out."),
)
_LOSSLESS = {torch.float32: (torch.float16, torch.bfloat16), torch.int64: (torch.int32,)}
"""Data types that convert to our type and back without loss."""

_RESIDUAL = re.compile(r"(encoder|decoder)\.(levels\.(\d+)|middle)\.(\d+)\.(.+)")
_UPSAMPLE = re.compile(r"decoder\.upsample\.(\d+)\.(.+)")


def transformer_names(transformer: MAGETransformer | MAGEClassifier) -> dict[str, str]:
    """Our name -> released name, for each tensor of the network."""
    head: tuple[tuple[str, str], ...] = _TOKEN_HEAD
    if isinstance(transformer, MAGEClassifier):
        head = _BATCHNORM_HEAD if transformer.head_norm is not None else _LINEAR_HEAD
    return {name: _rename(name, _TRANSFORMER + head) for name in transformer.state_dict()}


def tokenizer_names(tokenizer: VQGAN, prefix: str = "") -> dict[str, str]:
    """Our name -> released name, for each tensor of the tokenizer."""
    last = len(tokenizer.config.multipliers) - 1
    return {name: prefix + _tokenizer_name(name, last) for name in tokenizer.state_dict()}


def _tokenizer_name(name: str, last: int) -> str:
    """`last`: index of the lowest resolution, where our decoder starts to count and the released one ends."""
    if match := _UPSAMPLE.match(name):
        return f"decoder.up.{last - int(match[1])}.upsample.conv.{match[2]}"
    match = _RESIDUAL.match(name)
    if not match:
        return _rename(name, _TOKENIZER)
    half, _, level, block, rest = match.groups()
    rest = rest.replace("shortcut.", "nin_shortcut.")
    if level is None:
        return f"{half}.mid.block_{int(block) + 1}.{rest}"
    if half == "encoder":
        return f"encoder.down.{level}.block.{block}.{rest}"
    return f"decoder.up.{last - int(level)}.block.{block}.{rest}"


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    raise AssertionError(f"no released name for {name}")


def fill(module: nn.Module, names: dict[str, str], state: dict[str, Tensor]) -> dict[str, str]:
    """Copy released tensors into our network, and remove them from `state`.

    Returns the data types, by released name, that are not our network's. Raises ValueError for missing tensors, wrong
    shapes and data types that would lose digits.
    """
    own = module.state_dict()
    missing = [theirs for theirs in names.values() if theirs not in state]
    if missing:
        raise ValueError(f"the file lacks {len(missing)} tensors of the network: {enumerated(missing)}")
    taken, other_types = {}, {}
    for ours, theirs in names.items():
        tensor, shape = state[theirs], _released_shape(theirs, own[ours])
        if tensor.shape != shape:
            raise ValueError(
                f"{theirs} has shape {tuple(tensor.shape)}, by the other tensors it must be {tuple(shape)}"
            )
        kind = own[ours].dtype
        if tensor.dtype != kind:
            if tensor.dtype not in _LOSSLESS.get(kind, ()):
                raise ValueError(f"{theirs} holds {tensor.dtype}, which does not fit into {kind} without loss")
            other_types[theirs] = str(tensor.dtype).removeprefix("torch.")
        taken[ours] = tensor.reshape(own[ours].shape)
    module.load_state_dict(taken)
    for theirs in names.values():
        del state[theirs]
    return other_types


def released_tensors(module: nn.Module, names: dict[str, str], dtypes: dict[str, str]) -> dict[str, Tensor]:
    """The inverse of `fill`: the network's tensors with their released names, shapes and data types."""
    tensors = {}
    for ours, tensor in module.state_dict().items():
        theirs = names[ours]
        kind = getattr(torch, dtypes[theirs]) if theirs in dtypes else tensor.dtype
        shape = _released_shape(theirs, tensor)
        tensors[theirs] = tensor.detach().cpu().to(kind).contiguous().reshape(shape)
    return tensors


def _released_shape(theirs: str, tensor: Tensor) -> torch.Size:
    return torch.Size((1, 1, *tensor.shape)) if theirs == _WORD_BIAS else tensor.shape


def enumerated(names: list[str], most: int = 5) -> str:
    """Names for an error message, at most `most` of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
