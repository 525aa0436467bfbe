"""What goes into a run beside its task, and what comes out of it."""

import signal
from dataclasses import dataclass

from mage.training.task import TrainingWarning
from mage.training.trackers import TRACKERS


@dataclass(frozen=True)
class RunConfig:
    """How a run is executed, logged and saved; none of it changes what is learned."""

    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    observe_every: int = 1000
    """Steps between validations and sample grids."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Checkpoints kept, the newest ones."""
    compile: bool = False
    """Compile the repeated blocks with torch.compile: up to a minute at the start, for faster steps on a GPU."""

    trackers: tuple[str, ...] = ()
    """Where numbers go beside metrics.jsonl: tensorboard, wandb, trackio, or what others registered."""

    def __post_init__(self) -> None:
        for name in self.trackers:
            TRACKERS.get(name)  # raises ValueError for one that nobody registered
        if min(self.log_every, self.observe_every, self.checkpoint_every, self.keep_checkpoints) < 1:
            raise ValueError("run: log_every, observe_every, checkpoint_every and keep_checkpoints must be at least 1")


class Interrupted(Exception):
    """Training was stopped from outside after a checkpoint was written."""

    def __init__(self, sentence: str, number: int = signal.SIGINT) -> None:
        """number: of the signal that stopped it."""
        super().__init__(sentence)
        self.exit_code = 128 + number


class NonFiniteLoss(Exception):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished run reports."""

    steps: int
    seconds: float
    """Seconds spent in all sessions of the run."""
    metrics: dict[str, float]
    """Of the last observation."""
    skipped: tuple[str, ...] = ()
    """Image files that could not be read."""
    warnings: tuple[TrainingWarning, ...] = ()
    """What looked wrong on the way, and what to change."""
