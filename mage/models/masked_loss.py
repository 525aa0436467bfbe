"""The loss of masked tokens, of one shape where that matters: compiled, and on a GPU.

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
        rows, words = rows[mask.masked_index], words[mask.masked_index]
        return functional.cross_entropy(in_full(score(rows)), words, label_smoothing=smoothing)
    losses = functional.cross_entropy(in_full(score(rows)), words, label_smoothing=smoothing, reduction="none")
    return losses.masked_fill(~mask.masked.flatten(), 0).sum() / mask.masked.sum()
