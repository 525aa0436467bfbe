"""Initial weights of a training from another model's, as far as they fit (`--init-from`, `mage adapt`).

Parameters are matched by name. With the same tokenizer, codes keep their meaning and their embeddings. With another
one, codes have another meaning, so that only the words for null class and mask are copied, and class words if their
number is the same. Positions are resampled if the grid has changed. A deeper network starts as the shallower one:
blocks beyond the other model's depth return their input until they have learned something (Net2Net, arXiv 1511.05641).
So does a tokenizer's decoder with more blocks.
"""

import logging
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from mage.models import MAGETransformer
from mage.nn.grids import written
from mage.pipeline import Mage
from mage.tokenizers import VQGAN, Tokenizer
from mage.tokenizers.vqgan import ResidualBlock, VQGANConfig
from mage.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

RESAMPLING = {1: "linear", 2: "bicubic", 3: "trilinear"}
"""Interpolation of positions, by the number of dimensions."""


@torch.no_grad()
def start_from(network: MAGETransformer, model: Mage, tokenizer: Tokenizer | None) -> list[str]:
    """Copy the weights that fit from `model` to `network`; returns the names of parameters that keep initial values.

    tokenizer: of the new network; compared with the model's. Raises ValueError if the model has no MAGE network or
    none of its blocks fits.
    """
    source = model.transformer
    if not isinstance(source, MAGETransformer):
        raise ValueError("--init-from needs a pre-trained MAGE model, not a tokenizer, classifier or pixel encoder")
    own = tokenizer.fingerprint() if tokenizer is not None else "none"
    theirs = model.tokenizer.fingerprint() if model.tokenizer is not None else "none"
    words = word_map(source.vocabulary, network.vocabulary, same_codes=own == theirs)
    source_state, target_state = source.state_dict(), network.state_dict()
    left = []
    for name in idle_blocks(source, network):
        target_state[name].zero_()
    for name, tensor in target_state.items():
        value = source_state.get(name)
        if value is None:
            left.append(name)
            continue
        value = value.to(tensor)
        if name in ("encoder.embedding.word.weight", "head.bias"):
            if value.shape[1:] != tensor.shape[1:]:
                left.append(name)
                continue
            tensor[words[:, 1]] = value[words[:, 0]]
            if len(words) < len(tensor):
                left.append(f"{name} (all but {len(words)} words)")
        elif name in ("encoder.embedding.position.weight", "decoder_position") and source.grid != network.grid:
            if value.shape[-1] != tensor.shape[-1]:
                left.append(name)
                continue
            tensor.copy_(resample_positions(value, source.grid, network.grid))
        elif value.shape == tensor.shape:
            tensor.copy_(value)
        else:
            left.append(name)
    if all(name in left for name in target_state if ".blocks." in name):
        raise ValueError("no block of --init-from fits: its model has other sizes; choose the same model.width")
    for part in ("depth", "decoder_depth"):
        theirs, own = getattr(source.config, part), getattr(network.config, part)
        if own < theirs:
            logger.warning(
                "%d of the %d blocks of --init-from are left out, since model.%s is smaller", theirs - own, theirs, part
            )
    logger.info("started from %s; new: %s", type(source).__name__, ", ".join(left) or "nothing")
    return left


def check_tokenizer(tokenizer: VQGANConfig, source: VQGANConfig) -> None:
    """Raise ValueError unless a tokenizer can start from `source`: of the same sizes, with as many blocks or more."""
    if replace(source, decoder_blocks=tokenizer.decoder_blocks) != tokenizer:
        raise ValueError(
            "the tokenizer to start from has other sizes: only tokenizer.decoder_blocks can differ, and be larger"
        )
    if tokenizer.decoder_blocks < source.decoder_blocks:
        raise ValueError(
            f"the tokenizer to start from has {source.decoder_blocks} blocks in each level of its decoder, and "
            f"tokenizer.decoder_blocks={tokenizer.decoder_blocks} would leave some out"
        )


@torch.no_grad()
def start_tokenizer_from(tokenizer: VQGAN, source: VQGAN) -> None:
    """Copy all weights; further blocks of the decoder return their input. Raises ValueError as `check_tokenizer`."""
    check_tokenizer(tokenizer.config, source.config)
    tokenizer.load_state_dict(tokenizer.state_dict() | source.state_dict())
    for level in tokenizer.decoder.levels:
        for block in list(level.children())[source.config.decoder_blocks :]:
            assert isinstance(block, ResidualBlock)
            block.conv2.weight.zero_()


def idle_blocks(source: MAGETransformer, network: MAGETransformer) -> list[str]:
    """Parameters of `network` that decide what blocks beyond the depths of `source` add to their input."""
    last = ("attn.proj.weight", "attn.proj.bias", "mlp.fc2.weight", "mlp.fc2.bias")
    stacks = (
        ("encoder.blocks", source.config.depth, network.config.depth),
        ("decoder_blocks", source.config.decoder_depth, network.config.decoder_depth),
    )
    return [
        f"{stack}.{number}.{name}"
        for stack, theirs, own in stacks
        if theirs  # a first decoder has no other blocks whose output it would keep
        for number in range(theirs, own)
        for name in last
    ]


def word_map(source: Vocabulary, target: Vocabulary, *, same_codes: bool) -> Tensor:
    """Pairs (word in source, word in target) with the same meaning: (m, 2)."""
    pairs = [(source.null_class_id, target.null_class_id), (source.mask_id, target.mask_id)]
    if same_codes and source.num_codes == target.num_codes:
        pairs += [(code, code) for code in range(source.num_codes)]
    if source.num_classes == target.num_classes:
        pairs += [(source.num_codes + index, target.num_codes + index) for index in range(source.num_classes)]
    # the released layout's null class is also one of its class ids; the first pair is kept
    unique = dict(reversed([(new, old) for old, new in pairs]))
    return torch.tensor([(old, new) for new, old in unique.items()])


def resample_positions(positions: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Learned positions (..., 1 + l, d), class position first, for another grid of as many dimensions.

    Linear in one dimension, bicubic in two, trilinear in three. Raises ValueError if one grid has more dimensions than
    the other, not counting sides of 1: (1, 64) and (64,) are the same positions.
    """
    if len(old) != len(new):
        longer = [tuple(side for side in grid if side > 1) for grid in (old, new)]
        if len(longer[0]) != len(longer[1]) or not longer[0]:
            raise ValueError(
                f"positions on a grid of {written(old)} cannot be resampled to one of {written(new)}: "
                "start from a model of tokens with as many dimensions"
            )
        old, new = longer
    flat = positions.reshape(-1, positions.shape[-1])
    grid = flat[1:].T.reshape(1, -1, *old).float()
    resampled = functional.interpolate(grid, new, mode=RESAMPLING[len(new)], align_corners=False)
    result = torch.cat([flat[:1], resampled.flatten(2)[0].T.to(flat)])
    return result.reshape(*positions.shape[:-2], -1, positions.shape[-1])
