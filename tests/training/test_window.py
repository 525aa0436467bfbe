"""The window of readings between two lines of the log: what a checkpoint keeps of it holds for all processes."""

from types import SimpleNamespace

import pytest
import torch

from mage.training.task import Reading
from mage.training.window import Window


def test_a_checkpoint_keeps_the_readings_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process writes it, and every process goes on from it."""
    others = {"means": torch.tensor([6.0]), "largest": torch.tensor([9.0])}
    two = SimpleNamespace(
        sum_over_processes=lambda values: values + others["means"],
        largest_over_processes=lambda values: torch.maximum(values, others["largest"]),
        world_size=lambda: 2,
    )
    monkeypatch.setattr("mage.training.window.distributed", two)
    window = Window(torch.device("cpu"))
    window.steps = 2
    window.add({"loss": Reading(torch.tensor(2.0)), "norm": Reading(torch.tensor(5.0), "max")})
    state = window.state()
    assert state == {"steps": 2, "means": {"loss": 4.0}, "largest": {"norm": 9.0}}
    resumed = Window(torch.device("cpu"))
    resumed.restore(state)
    others["means"] = torch.tensor([4.0])  # the other process has restored the same
    assert resumed.read() == {"loss": 2.0, "norm": 9.0} == window_of(4.0, 9.0).read()


def window_of(total: float, largest: float) -> Window:
    window = Window(torch.device("cpu"))
    window.restore({"steps": 2, "means": {"loss": torch.tensor(total)}, "largest": {"norm": torch.tensor(largest)}})
    return window
