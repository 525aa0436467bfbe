"""`mage adapt`: a table of before and after, a page, and a run that other commands take."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mage.recipes import fitting
from mage.runs import fitted
from mage.runs.pace import Pace

Command = Callable[..., SimpleNamespace]


def test_a_folder_becomes_a_run_with_both_models_in_a_table_and_a_page(
    disk: SimpleNamespace, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "FEWEST_STEPS_CONTINUED", 4)
    for name in ("tokenizer_pace", "pretraining_pace"):
        monkeypatch.setattr(fitted, name, lambda *_: Pace(2.0, 2))
    words = ("adapt", disk.root / "folder", "--from", disk.root / "trained", "--minutes", 1, "--out", tmp_path / "run")
    told = command(*words, "--precision", "float32")
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert lines[0].split() == ["before", "after"]
    assert any(line.startswith("k-NN") and line.count(" to ") == 2 for line in lines), "with intervals"
    assert any(line.startswith("Masked loss") for line in lines)
    assert "one average colour per token" in told.out, "an untrained tokenizer is warned of"
    again = json.loads(command(*words, "--precision", "float32", "--json").out)
    assert again["before"]["metrics"] == json.loads((tmp_path / "run" / "adapt.json").read_text())["before"]["metrics"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Samples of the new model" in page
    assert "what both tokenizers make of them" in page
    made = command("generate", "--model", tmp_path / "run", "--num-images", 2, "--out", tmp_path / "samples")
    assert made.code == 0, made.err
