"""Division of a step's batch among processes; the batch does not depend on their number.

A step of training has one batch of B images, numbered from 0. It is cut into parts x processes pieces of equal length:
a process computes its pieces one after the other (accumulation), all processes at the same time. Everything random
about row r of step s follows from (seed, s, r) alone, so that images, masks and losses do not depend on the division;
only dropout is drawn by each process for its pieces.
"""

from dataclasses import dataclass

from torch import Tensor

SETTING = (
    "--set pretraining.batch_size, for a tokenizer tokenizer_training.batch_size, for `mage finetune` optim.batch_size"
)
"""Where a user sets the size of a step's batch, for errors."""


@dataclass(frozen=True)
class Share:
    """One process's share of every step's batch."""

    batch_size: int
    """Images per step, over all processes and parts."""
    parts: int = 1
    """Pieces that a process works on one after the other."""
    rank: int = 0
    """Number of the process."""
    world_size: int = 1
    """Number of processes."""

    def __post_init__(self) -> None:
        pieces = self.parts * self.world_size
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"of {self.world_size} processes, rank must lie from 0 to {self.world_size - 1}, not {self.rank}"
            )
        if self.batch_size < 1 or self.batch_size % pieces:
            below = self.batch_size // pieces * pieces
            better = f"{below} or {below + pieces}" if below else f"{pieces}"
            raise ValueError(
                f"a batch of {self.batch_size} does not divide by {self.world_size} processes x {self.parts} parts "
                f"(accumulation); choose a batch size of {better} ({SETTING})"
            )

    @property
    def piece(self) -> int:
        """Images of one part on one process."""
        return self.batch_size // (self.parts * self.world_size)

    def rows(self, part: int) -> range:
        """The rows of the step's batch in part `part` of this process."""
        first = (part * self.world_size + self.rank) * self.piece
        return range(first, first + self.piece)


@dataclass(frozen=True)
class Turn:
    """One part of one step, on one process."""

    step: int
    part: int
    share: Share

    @property
    def rows(self) -> range:
        """The rows of the step's batch that this turn works on."""
        return self.share.rows(self.part)

    def take(self, whole: Tensor, dim: int = 0) -> Tensor:
        """This turn's rows of a tensor that was drawn for the step's whole batch."""
        return whole.narrow(dim, self.rows.start, len(self.rows))
