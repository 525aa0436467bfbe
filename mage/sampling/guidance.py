"""Classifier-free guidance: move scores with the class away from scores without it (Ho and Salimans 2022).

c + w (c - u), where w is constant, grows with the steps, or applies in a part of them only (docs/method.md, Guidance).
"""

from torch import Tensor

from mage.sampling.decode import LogitsFn
from mage.sampling.settings import SamplingConfig


def guided(with_class: LogitsFn, without: LogitsFn, settings: SamplingConfig) -> LogitsFn:
    """One logits function from the two; steps whose weight is 0 cost one pass instead of two."""

    def logits(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        scores = with_class(tokens, places, progress)
        weight = settings.guidance_at(progress)
        if weight == 0:
            return scores
        return scores + weight * (scores - without(tokens, places, progress))

    return logits
