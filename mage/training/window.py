"""Metrics of the steps since the last line of the log, kept on the device until the line is written."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mage import distributed
from mage.nn.precision import in_full
from mage.training.task import Reading


class Window:
    """Accumulates means and maxima; nothing is read from the device before `read`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.steps = 0
        self._means: dict[str, Tensor] = {}
        self._largest: dict[str, Tensor] = {}
        self._finite = torch.ones((), device=device)

    def add(self, readings: Mapping[str, Reading], weight: float = 1.0) -> None:
        """Add readings; weight: the share of the step that they belong to."""
        for name, (value, reduce) in readings.items():
            value = in_full(value.detach())
            self._finite = torch.minimum(self._finite, value.isfinite().float())
            if reduce == "mean":
                self._means[name] = self._means.get(name, torch.zeros((), device=self._device)) + value * weight
            else:
                self._largest[name] = torch.maximum(value, self._largest.get(name, value))

    def is_finite(self) -> bool:
        """Whether every number so far was finite in every process; all processes must call it."""
        return not distributed.any_process(not bool(self._finite))

    def read(self) -> dict[str, float]:
        """The metrics over all processes; empties the window. All processes must call it."""
        means, largest = self._over_processes()
        values = {name: float(value) / self.steps for name, value in means.items()}
        values |= {name: float(value) for name, value in largest.items()}
        self.steps, self._means, self._largest = 0, {}, {}
        return values

    def _over_processes(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Sums over the steps, as means over the processes, and maxima; on the CPU, read from the device at once."""
        merged = list[dict[str, Tensor]]()
        for readings, merge in (
            (self._means, lambda x: distributed.sum_over_processes(x) / distributed.world_size()),
            (self._largest, distributed.largest_over_processes),
        ):
            values = merge(torch.stack(list(readings.values()))).cpu().unbind() if readings else ()
            merged.append(dict(zip(readings, values, strict=True)))
        return merged[0], merged[1]

    def mean(self, name: str) -> float:
        """A mean of this process alone over the steps so far, of which there must be one; nothing is emptied."""
        return float(self._means[name]) / self.steps

    def state(self) -> dict[str, object]:
        """The content of the windows of all processes, for a resumed run of any number; all must call it."""
        means, largest = self._over_processes()
        return {"steps": self.steps, "means": means, "largest": largest}

    def restore(self, state: Mapping[str, object]) -> None:
        """Restore the content of `state`."""
        means, largest, steps = state["means"], state["largest"], state["steps"]
        assert isinstance(means, dict)
        assert isinstance(largest, dict)
        assert isinstance(steps, int)
        self._means = {name: value.to(self._device) for name, value in means.items()}
        self._largest = {name: value.to(self._device) for name, value in largest.items()}
        self.steps = steps
