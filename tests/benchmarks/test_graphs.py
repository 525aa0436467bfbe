"""A training step is one graph of one shape, and gives the losses of the plain step; counted in a process of its own,
because shapes that are checked at run time cannot be compiled."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from mage.benchmarks.graphs import count_graphs
from mage.training.engine import Trainer

ROOT = Path(__file__).parents[2]


def test_a_compiled_step_is_one_graph_at_every_ratio(tmp_path: Path) -> None:
    words = [sys.executable, "studies/graphs.py", "--steps", "6", "--backend", "aot_eager", "--results", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(words, check=True, cwd=ROOT, env=environment, capture_output=True)
    metrics = json.loads((tmp_path / "graphs.json").read_text())["metrics"]
    assert metrics["graph_breaks"] == 0
    assert metrics["recompilations"] == 0
    assert metrics["host_syncs_per_step"] == 0
    assert 0 < metrics["loss_max_rel"] < 1e-5, "the same numbers, computed in another order"


def read_a_number(weight: Tensor) -> object:
    return float(weight.sum())


def choose_by_flags(weight: Tensor) -> object:
    return weight[weight > 0]


@pytest.mark.parametrize("wait", [read_a_number, choose_by_flags])
def test_waits_are_counted(wait: Callable[[Tensor], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_graphs(tmp_path / "none", steps=3, compiled=False).host_syncs_per_step == 0
    step = Trainer.train_step

    def waiting(trainer: Trainer) -> None:
        step(trainer)
        wait(next(trainer.task.modules["mage"].parameters()).detach())

    monkeypatch.setattr(Trainer, "train_step", waiting)
    assert count_graphs(tmp_path / "one", steps=3, compiled=False).host_syncs_per_step == 1


def test_every_token_method_is_one_graph_with_the_plain_losses() -> None:
    words = [sys.executable, str(ROOT / "tests" / "reference" / "one_graph.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, check=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    methods = json.loads(done.stdout)
    assert set(methods) == {"mage", "class words", "class vectors", "maskgit", "mage-c"}
    for name, counts in methods.items():
        assert counts["graphs"] == 1, name
        assert counts["deviation"] < 1e-5, name
