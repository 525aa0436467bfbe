"""What goes into a run beside its task, and what comes out of it."""

from dataclasses import dataclass


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


class Interrupted(Exception):
    """Training was stopped by the user after a checkpoint was written."""


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
    warnings: tuple[str, ...] = ()
    """What looked wrong on the way, and what to change."""
