"""What docs/extending.md promises: its code runs, what its table names exists, and no registry is missing from it."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mage import runs
from mage.data.datasets import DATASETS
from mage.evaluation.generation_metrics import GENERATION_METRICS
from mage.evaluation.representation import REPRESENTATION_PROTOCOLS
from mage.registry import Registry
from mage.sampling.orders import ORDERS
from mage.tokenizers.quantizers import QUANTIZERS
from mage.training.trackers import TRACKERS
from tests.reference.launches import quiet

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "extending.md").read_text()
REGISTRIES: dict[str, tuple[Registry[Any], str]] = {
    "mage.sampling.orders.ORDERS": (ORDERS, "middle-first"),
    "mage.tokenizers.quantizers.QUANTIZERS": (QUANTIZERS, "cosine"),
    "mage.data.datasets.DATASETS": (DATASETS, "stripes"),
    "mage.training.trackers.TRACKERS": (TRACKERS, "printed"),
    "mage.evaluation.generation_metrics.GENERATION_METRICS": (GENERATION_METRICS, "means"),
    "mage.evaluation.representation.REPRESENTATION_PROTOCOLS": (REPRESENTATION_PROTOCOLS, "nearest-class"),
}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    for registry, name in REGISTRIES.values():
        registry.remove(name)


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    for block in TEXT.split("```python\n")[1:]:
        exec(compile(block.split("```")[0], "extending.md", "exec"), scope)
    assert isinstance(scope["images"], torch.Tensor)
    runs.train_tokenizer(scope["recipe"], quiet(tmp_path / "run"))
    assert "run 12 {" in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "config.json").read_text().count('"cosine"')


def test_the_table_names_what_there_is() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("|") and "tests/" in line]
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in lines]
    assert len(rows) >= 5
    for _, registry, group, shown, test in rows:
        assert (ROOT / test).is_file()
        if registry.startswith("mage."):
            module, _, name = registry.rpartition(".")
            assert getattr(importlib.import_module(module), name).group == group
            assert (ROOT / shown).is_file()
    assert {row[1] for row in rows} >= set(REGISTRIES)
