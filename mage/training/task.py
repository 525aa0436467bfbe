"""The interface between the training loop and a task: modules, batches, losses.

A new method is a subclass: it defines its modules and losses, and inherits defaults for everything else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """A number for the log, without gradient, and its reduction over parts and processes."""

    value: Tensor
    reduce: Literal["mean", "max"] = "mean"


class Loss(NamedTuple):
    """One loss to minimise. Its mean over parts and processes is the loss of the step's whole batch."""

    module: str
    """The module whose parameters it updates; each module has its own optimizer."""
    value: Tensor
    readings: Mapping[str, Reading] = {}
    """Further numbers for the log."""


class TrainingWarning(NamedTuple):
    """A problem that a run's metrics show."""

    kind: str
    """Each kind is reported once in a run."""
    sentence: str
    """The problem, with its numbers, and what to change."""


@dataclass(frozen=True)
class Observation:
    """Validation of the averaged weights during training."""

    metrics: dict[str, float] = field(default_factory=dict)
    image: Tensor | None = None
    """(C, H, W) in [0, 1]: a grid of samples or reconstructions."""


class Task:
    """Something to train. `modules` are trained in place; each has its own optimizer settings."""

    modules: dict[str, nn.Module]
    optim: dict[str, OptimConfig]
    steps: int
    one_graph: bool = False
    """Whether a module's forward pass, loss included, compiles as one graph of one shape."""
    frozen: tuple[nn.Module | nn.Parameter, ...] = ()
    """Submodules and parameters that are not trained; submodules run without dropout."""
    kept_whole: tuple[str, ...] = ()
    """Modules that no strategy cuts among processes, because they are also called outside of the loop's wrapper."""
    of_parts: str = ""
    """What is computed within each part of a batch, and so depends on `accumulation`; empty: nothing."""
    moved: Mapping[str, Sequence[tuple[nn.Module, str]]] = {}
    """For each module, parameters (owner, name) that its forward pass itself changes, such as unused words."""

    def __init__(
        self, module: str, network: nn.Module, source: Batches, optim: OptimConfig, *, num_images: int
    ) -> None:
        """A task with one module, called `module`; more may be added.

        source: of batches. num_images: of the data set; with `optim.epochs` it determines the number of steps.
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
        """The losses of one part of a batch, in the order of minimisation. `modules`: as wrapped by the loop."""
        raise NotImplementedError

    def after_update(self, module: str, step: int) -> None:
        """Called when step `step` (from 0) has moved a module's weights, before they enter its moving average.

        For updates that are due once a step, such as a teacher, a queue or a running centre.
        """

    def observe(self, modules: Mapping[str, nn.Module]) -> Observation:
        """Validate the averaged weights, with an image for the samples folder."""
        return Observation()

    def export(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        """Write the averaged weights as a model folder."""
        raise NotImplementedError

    def warnings(self, metrics: Mapping[str, float]) -> list[TrainingWarning]:
        """Problems that a line of the log or an observation shows, with advice."""
        return []

    def state(self) -> dict[str, Any]:
        """Anything beyond the modules that a resumed run needs; plain values and tensors."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the values of `state`."""
