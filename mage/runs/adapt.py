"""Domain adaptation: begin pre-training at the weights of another model, as far as they fit (`--init-from`).

Parameters are matched by name. Where the tokenizer is the same, its codes keep their meaning and their embeddings;
where it is another one, code 7 means something else, so only the words that mean the same everywhere, null class and
mask, are taken over, and class words if there are as many. Positions are resampled where the grid has changed.
"""

import logging

import torch
from torch import Tensor
from torch.nn import functional

from mage.models import MAGETransformer
from mage.nn.grids import written
from mage.pipeline import Mage
from mage.tokenizers import Tokenizer
from mage.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

RESAMPLING = {1: "linear", 2: "bicubic", 3: "trilinear"}
"""How positions are resampled, by the number of dimensions."""


@torch.no_grad()
def start_from(network: MAGETransformer, model: Mage, tokenizer: Tokenizer | None) -> list[str]:
    """Copy what fits from `model` into `network`; returns the names of the parameters left at their start.

    tokenizer: of the new network; compared with the model's. Raises ValueError if the model has no MAGE network or
    none of its blocks fits.
    """
    source = model.transformer
    if not isinstance(source, MAGETransformer):
        raise ValueError("--init-from needs a pre-trained MAGE model")
    own = tokenizer.fingerprint() if tokenizer is not None else "none"
    theirs = model.tokenizer.fingerprint() if model.tokenizer is not None else "none"
    words = word_map(source.vocabulary, network.vocabulary, same_codes=own == theirs)
    given, wanted = source.state_dict(), network.state_dict()
    left = []
    for name, tensor in wanted.items():
        found = given.get(name)
        if found is None:
            left.append(name)
            continue
        found = found.to(tensor)
        if name in ("encoder.embedding.word.weight", "head.bias"):
            if found.shape[1:] != tensor.shape[1:]:
                left.append(name)
                continue
            tensor[words[:, 1]] = found[words[:, 0]]
            if len(words) < len(tensor):
                left.append(f"{name} (all but {len(words)} words)")
        elif name in ("encoder.embedding.position.weight", "decoder_position") and source.grid != network.grid:
            if found.shape[-1] != tensor.shape[-1]:
                left.append(name)
                continue
            tensor.copy_(resample_positions(found, source.grid, network.grid))
        elif found.shape == tensor.shape:
            tensor.copy_(found)
        else:
            left.append(name)
    if all(name in left for name in wanted if ".blocks." in name):
        raise ValueError("no block of --init-from fits: its model has other sizes; choose the same model.width")
    logger.info("started from %s; new: %s", type(source).__name__, ", ".join(left) or "nothing")
    return left


def word_map(source: Vocabulary, target: Vocabulary, *, same_codes: bool) -> Tensor:
    """Pairs (word in source, word in target) that mean the same: (m, 2)."""
    pairs = [(source.null_class_id, target.null_class_id), (source.mask_id, target.mask_id)]
    if same_codes and source.num_codes == target.num_codes:
        pairs += [(code, code) for code in range(source.num_codes)]
    if source.num_classes == target.num_classes:
        pairs += [(source.num_codes + index, target.num_codes + index) for index in range(source.num_classes)]
    # the released layout's null class is also one of its class ids; the first pair wins
    unique = dict(reversed([(new, old) for old, new in pairs]))
    return torch.tensor([(old, new) for new, old in unique.items()])


def resample_positions(positions: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Learned positions (..., 1 + l, d), class position first, for another grid of as many dimensions.

    Linear along one dimension, bicubic in two, trilinear in three. Raises ValueError where one grid has more
    dimensions than the other; sides of 1 do not count then: (1, 64) and (64,) are the same places.
    """
    if len(old) != len(new):
        longer = [tuple(side for side in grid if side > 1) for grid in (old, new)]
        if len(longer[0]) != len(longer[1]) or not longer[0]:
            raise ValueError(
                f"positions on a grid of {written(old)} say nothing about one of {written(new)}: "
                "start from a model of tokens with as many dimensions"
            )
        old, new = longer
    flat = positions.reshape(-1, positions.shape[-1])
    grid = flat[1:].T.reshape(1, -1, *old).float()
    resampled = functional.interpolate(grid, new, mode=RESAMPLING[len(new)], align_corners=False)
    result = torch.cat([flat[:1], resampled.flatten(2)[0].T.to(flat)])
    return result.reshape(*positions.shape[:-2], -1, positions.shape[-1])
