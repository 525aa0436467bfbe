"""Classifier-free guidance: move scores with the class away from scores without it (Ho and Salimans 2022).

c + w (c - u), where w is constant, grows with the steps, or applies in a part of them only (docs/method.md, Guidance).
"""

from torch import Tensor

from mage.sampling.decode import LogitsFn
from mage.sampling.settings import SamplingConfig


def guided(twice: LogitsFn, alone: LogitsFn | None, settings: SamplingConfig) -> LogitsFn:
    """One logits function for a batch of grids with classes.

    twice: scores of two copies of the batch, one behind the other, the second without classes. alone: scores of the
    batch with its classes, for steps whose weight is 0; None: these compute both, too.
    """

    def logits(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        weight = settings.guidance_at(progress)
        if weight == 0 and alone is not None:
            return alone(tokens, places, progress)
        scores, without = twice(tokens.repeat(2, 1), places.repeat(2, 1), progress).chunk(2)
        return scores + weight * (scores - without)

    return logits
