"""Configuration and result of a run, apart from its task."""

import signal
from dataclasses import dataclass

from mage.training.task import TrainingWarning
from mage.training.trackers import TRACKERS


@dataclass(frozen=True)
class RunConfig:
    """Logging, validation and checkpoints of a run; nothing here changes what is learned."""

    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    observe_every: int = 1000
    """Steps between validations and sample grids."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Checkpoints kept, the newest ones."""
    compile: bool = False
    """Compile with torch.compile, MAGE's step as one graph, other methods' blocks: up to a minute at the start, for
    faster steps on a GPU."""

    trackers: tuple[str, ...] = ()
    """Trackers that also receive the metrics: tensorboard, wandb, trackio, or one registered by another package."""

    def __post_init__(self) -> None:
        for name in self.trackers:
            TRACKERS.get(name)  # raises ValueError for an unknown tracker
        for name in ("log_every", "observe_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"run.{name} must be at least 1, not {getattr(self, name)}")


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
    """Result of a finished run."""

    steps: int
    seconds: float
    """Seconds spent in all sessions of the run."""
    metrics: dict[str, float]
    """Metrics of the last observation."""
    skipped: tuple[str, ...] = ()
    """Image files that could not be read."""
    warnings: tuple[TrainingWarning, ...] = ()
    """Problems that training showed, with advice."""
