"""Configuration and result of a run, apart from its task."""

import signal
from dataclasses import dataclass
from typing import Literal, get_args

from mage.training.task import TrainingWarning
from mage.training.trackers import TRACKERS

Compile = Literal["auto", "on", "off"]
Strategy = Literal["ddp", "fsdp"]
Checkpoints = Literal["whole", "sharded"]


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
    compile: Compile = "auto"
    """Compile with torch.compile: MAGE, MAGE-C and MaskGIT with their losses as one graph, other methods by blocks; the
    first step takes a minute or two. auto: on a GPU, for runs of 20,000 steps and more that are one graph."""

    strategy: Strategy = "ddp"
    """With several processes: ddp keeps the network whole in each, fsdp a part of it (FSDP2), for networks that do not
    fit. The results are equal; a run may change it when it is resumed."""
    checkpoints: Checkpoints = "whole"
    """whole: one file by the first process. sharded: a folder into which every process writes its part, while training
    goes on. A run may change it when it is resumed, by any number of processes."""
    timeout: float = 600.0
    """Seconds that a process waits for the others in an exchange; then the run ends, because one has died or stalled.
    While one process validates or writes, the others wait longer, as long as it is alive."""
    trackers: tuple[str, ...] = ()
    """Trackers that also receive the metrics: tensorboard, wandb, trackio, or one registered by another package."""

    def __post_init__(self) -> None:
        for name in self.trackers:
            TRACKERS.get(name)  # raises ValueError for an unknown tracker
        for name in ("log_every", "observe_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"run.{name} must be at least 1, not {getattr(self, name)}")
        for name, kind in (("compile", Compile), ("strategy", Strategy), ("checkpoints", Checkpoints)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"run.{name} must be {' or '.join(get_args(kind))}, not {getattr(self, name)!r}")
        if not 1 <= self.timeout <= 1e6:
            raise ValueError(f"run.timeout must lie from 1 to 1,000,000 seconds, not {self.timeout}")


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
