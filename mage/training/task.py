"""What the training loop asks of a task: modules, batches, losses. The loop knows nothing else about what it trains.

A new method is a subclass: it says what its modules and losses are, and inherits an answer to all else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from mage.data.batches import Batches
from mage.share import Share, Turn
from mage.training.optim import OptimConfig

Watch = Callable[[Any], dict[str, float]]
"""(network with `features`) -> numbers for the log: an online probe, wired in by the run."""


class Reading(NamedTuple):
    """A number for the log, without gradient, and how the numbers of parts and processes become one."""

    value: Tensor
    reduce: Literal["mean", "max"] = "mean"


class Loss(NamedTuple):
    """One loss to minimise. Its mean over parts and processes is the loss of the step's whole batch."""

    module: str
    """Which module's parameters it moves; each module has an optimizer of its own."""
    value: Tensor
    readings: Mapping[str, Reading] = {}
    """Further numbers for the log."""


class TrainingWarning(NamedTuple):
    """Something looks wrong in a run."""

    kind: str
    """Each kind is told once in a run."""
    sentence: str
    """What is wrong, with its numbers, and what to change."""


@dataclass(frozen=True)
class Observation:
    """A look at the averaged weights in the middle of training."""

    metrics: dict[str, float] = field(default_factory=dict)
    image: Tensor | None = None
    """(C, H, W) in [0, 1]: a grid of samples or reconstructions."""


class Task:
    """Something to train. `modules` are trained in place; each has its own optimizer settings."""

    modules: dict[str, nn.Module]
    optim: dict[str, OptimConfig]
    steps: int
    frozen: tuple[nn.Module | nn.Parameter, ...] = ()
    """Parts of the modules, and single weights, that stay as they are; parts run without dropout."""

    def __init__(
        self, module: str, network: nn.Module, source: Batches, optim: OptimConfig, *, num_images: int
    ) -> None:
        """A task with one module, called `module`; more may be added.

        source: where batches come from. num_images: of the data set; with `optim.epochs` it decides about the steps.
        """
        self.modules, self.optim = {module: network}, {module: optim}
        self.source, self.steps = source, optim.num_steps(num_images)

    @property
    def batch_size(self) -> int:
        """Images of a step, over all processes and accumulated parts."""
        return next(iter(self.optim.values())).batch_size

    @property
    def accumulation(self) -> int:
        """Parts that a step's batch is processed in."""
        return max(optim.accumulation for optim in self.optim.values())

    def batches(self, start: int, share: Share) -> Iterator[dict[str, Tensor]]:
        """This process's parts of the batches, from step `start` on: a function of the step, so that runs resume."""
        return self.source(start, share)

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        """The losses of one part of a batch, in the order of minimising them. `modules`: as the loop wrapped them."""
        raise NotImplementedError

    def after_update(self, module: str, step: int) -> None:
        """Called when step `step` (from 0) has moved a module's weights, before they enter its moving average.

        For what follows the weights once a step, however many parts it has: a teacher, a queue, a running centre.
        """

    def observe(self, modules: Mapping[str, nn.Module]) -> Observation:
        """Validate the averaged weights, and show what they do."""
        return Observation()

    def export(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        """Write the averaged weights as a model folder."""
        raise NotImplementedError

    def warnings(self, metrics: Mapping[str, float]) -> list[TrainingWarning]:
        """What looks wrong in a line of the log or an observation, and what to change."""
        return []

    def state(self) -> dict[str, Any]:
        """Anything beyond the modules that a resumed run needs; plain values and tensors."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
