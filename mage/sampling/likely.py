"""Which positions a step is likely to take, by the scores that they had when they were last computed.

A pass that computes few positions (`reuse.py`) must know them before it. The step's random numbers are drawn first:
with them, every position draws its code from its last scores, and the most confident ones are computed anew. From
scores that have changed little the same random number draws the same code, so few positions beyond those that are taken
have to be computed.

Letters: n grids, l tokens, u positions that are scored, c codes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mage.sampling.draw import draw_codes
from mage.sampling.settings import Drawing


class LastScores:
    """Log-probabilities of the codes at every position of a batch of grids, each from the last pass that scored it."""

    def __init__(self) -> None:
        self._kept: Tensor | None = None

    def update(
        self,
        log_probability: Float[Tensor, "n u c"],
        places: Int[Tensor, "n u"],
        counts: Bool[Tensor, "n u"],
        length: int,
    ) -> None:
        """Keep the scores of a pass. counts: which of the places are no padding."""
        codes = log_probability.shape[2]
        if self._kept is None:
            self._kept = log_probability.new_full((len(places), length, codes), -torch.inf)
        wide = places[..., None].expand(-1, -1, codes)
        self._kept.scatter_(1, wide, torch.where(counts[..., None], log_probability, self._kept.gather(1, wide)))

    def confidence(self, uniform: Float[Tensor, "n l"] | None, drawing: Drawing) -> Float[Tensor, "n l"]:
        """Log-probability of the code that each position would draw with these random numbers (`draw_codes`)."""
        assert self._kept is not None, "the first pass scores every unknown position"
        codes = draw_codes(self._kept, uniform, **drawing)
        return self._kept.gather(2, codes[..., None])[..., 0]
