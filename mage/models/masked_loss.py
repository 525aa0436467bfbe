"""The loss of masked tokens, of one shape where that matters: compiled, and on a GPU; elsewhere of a few shapes.

Letters: n images, l tokens, u positions that are scored, p decoder width, c codes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mage.masking import Mask
from mage.nn.precision import in_full

Score = Callable[[Float[Tensor, "u p"]], Float[Tensor, "u c"]]
"""Decoder outputs -> scores of the codes."""


SHAPES = 16
"""Numbers of scored positions on a CPU: oneDNN keeps a program for every shape of a product, 10 to 30 MB each."""


def scores_every_position(device: torch.device) -> bool:
    """Whether the loss scores all positions and counts the masked ones, instead of scoring the masked ones alone.

    The value is the same. Scoring all gives a step one shape at every mask ratio, as compilers and CUDA graphs need it,
    and nobody waits for a GPU to count; uncompiled on a CPU it would cost up to a tenth of a step (4,096 codes).
    """
    return torch.compiler.is_compiling() or device.type != "cpu"


def masked_loss(
    score: Score, decoded: Float[Tensor, "n l p"], targets: Int[Tensor, "n l"], mask: Mask, *, smoothing: float
) -> Float[Tensor, ""]:
    """Cross-entropy with label smoothing, mean over the batch's masked positions, in float32 at least."""
    rows, words = decoded.flatten(0, 1), targets.flatten()
    if not scores_every_position(decoded.device):
        index = mask.masked_index
        scores = score(rows[_filled_up(index, len(rows))])[: len(index)]
        return functional.cross_entropy(in_full(scores), words[index], label_smoothing=smoothing)
    losses = functional.cross_entropy(in_full(score(rows)), words, label_smoothing=smoothing, reduction="none")
    return losses.masked_fill(~mask.masked.flatten(), 0).sum() / mask.masked.sum()


def _filled_up(index: Int[Tensor, " u"], total: int) -> Int[Tensor, " v"]:
    """The index and further positions, so that few lengths occur; what is computed for these counts for nothing."""
    unit = -(-total // SHAPES)
    return torch.cat([index, index.new_zeros(min(total, -(-len(index) // unit) * unit) - len(index))])
