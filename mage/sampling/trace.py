"""When each token became known: a record of one decoding, as `on_step` tells it.

Letters: n grids.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from mage.sampling.decode import UNKNOWN

GIVEN, LATER = 0, -1
"""Numbers of tokens that were known before the first step, and of those that are still unknown."""


class Trace:
    """The step, from 1, in which each token became known; of one batch of grids.

    Pass `update` as `on_step`, and call `finish` with the result.
    """

    def __init__(self) -> None:
        self.known_in: Tensor | None = None
        """Numbers (n, *grid): GIVEN, the step from 1, or LATER; None before the first step."""
        self._steps = 0

    def update(self, step: int, tokens: Int[Tensor, "n *grid"]) -> Int[Tensor, "n *grid"]:
        """Take the grids before step number `step`, from 0; returns `known_in`."""
        if self.known_in is None:
            self.known_in = torch.full_like(tokens, LATER)
        new = (tokens != UNKNOWN) & (self.known_in == LATER)
        self.known_in = self.known_in.masked_fill(new, step)
        self._steps = step + 1
        return self.known_in

    def finish(self, tokens: Int[Tensor, "n *grid"]) -> Int[Tensor, "n *grid"]:
        """Take the complete grids; revision afterwards changes codes, not when a token was first known."""
        return self.update(self._steps, tokens)
