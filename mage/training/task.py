"""What the training loop asks of a task: modules, batches, losses. The loop knows nothing else about what it trains."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from mage.training.optim import OptimConfig


class Loss(NamedTuple):
    """One loss to minimise."""

    module: str
    """Which module's parameters it moves; each module has an optimizer of its own."""
    value: Tensor
    metrics: dict[str, Tensor]
    """Further numbers for the log, without gradient."""


@dataclass(frozen=True)
class Observation:
    """A look at the averaged weights in the middle of training."""

    metrics: dict[str, float] = field(default_factory=dict)
    image: Tensor | None = None
    """(C, H, W) in [0, 1]: a grid of samples or reconstructions."""


@runtime_checkable
class Task(Protocol):
    """Something to train. `modules` are trained in place; each has its own optimizer settings."""

    modules: dict[str, nn.Module]
    optim: dict[str, OptimConfig]
    batch_size: int
    steps: int
    frozen: tuple[nn.Module, ...]
    """Parts of the modules that keep their weights."""

    def batches(self, start: int, *, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """This process's batches from number `start` on: a pure function of that number, so that a run can resume."""

    def losses(
        self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], *, number: int, rank: int
    ) -> Iterator[Loss]:
        """The losses of one batch, in the order of minimising them. `modules`: as the loop wrapped them."""

    def observe(self, modules: Mapping[str, nn.Module], *, pictures: bool) -> Observation:
        """Validate the averaged weights, and show what they do if `pictures`."""

    def export(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        """Write the averaged weights as a model folder."""

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """What looks wrong in a line of the log or an observation, and what to change."""

    def state(self) -> dict[str, Any]:
        """Anything beyond the modules that a resumed run needs."""
