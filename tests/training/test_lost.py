"""A process that dies or stalls does not keep the others waiting for ever."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    not torch.distributed.is_gloo_available() or not hasattr(signal, "SIGSTOP"), reason="needs gloo and SIGSTOP"
)
BOUND = 4.0
SLOW = 60.0
"""Seconds that a busy machine may need for what takes one."""


def run(case: str, folder: Path) -> str:
    """Run a case of lost.py; what it says about errors."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, str(ROOT / "tests" / "reference" / "lost.py"), case, str(folder), str(BOUND)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400).stderr


def found(folder: Path, error: str) -> Any:
    assert (folder / "found.json").is_file(), error[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("case", ["SIGSTOP", "SIGKILL"])
def test_the_others_end_within_the_bound_when_one_stalls_or_dies_in_training(tmp_path: Path, case: str) -> None:
    told = found(tmp_path, run(case, tmp_path))
    assert told["sentence"].startswith("process 0 of 2 has lost another one")
    assert "4 seconds (run.timeout)" in told["sentence"]
    assert told["seconds"] < BOUND + SLOW


def test_those_who_wait_for_the_first_process_end_when_it_stalls(tmp_path: Path) -> None:
    told = found(tmp_path, run("validating", tmp_path))
    assert told["sentence"].startswith("process 1 of 2 has lost another one")
    assert BOUND * 0.7 < told["seconds"] < BOUND + SLOW


def test_work_of_the_first_process_may_take_longer_than_the_bound(tmp_path: Path) -> None:
    error = run("working", tmp_path)
    for rank in (0, 1):
        assert (tmp_path / f"{rank}.json").is_file(), error[-3000:]
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == ["done", 2.0]
