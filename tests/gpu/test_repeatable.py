"""On a CUDA GPU: a deterministic run repeats to the last bit and agrees with the CPU to rounding (determinism.md)."""

from pathlib import Path

import pytest
import torch

import mage
from mage import runs
from mage.recipes import named
from mage.settings import override
from mage.training.runlog import read_log
from tests.reference.launches import quiet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: make test-gpu")


def trained(root: Path, device: str, method: str, *, deterministic: bool) -> dict[str, torch.Tensor]:
    """Weights of tokenizer and network after a few steps."""
    recipe = override(named("smoke"), [f"method={{name: {method}}}", "run.log_every=1", "model.dropout=0"])
    more = {"device": device, "precision": "float32", "deterministic": deterministic}
    runs.train_tokenizer(recipe, quiet(root / "tokenizer", **more))
    tokenizer = runs.load_tokenizer(root / "tokenizer", device=device, precision="float32")
    runs.pretrain(recipe, quiet(root / "run", **more), tokenizer)
    model = mage.load(root / "run", device="cpu", precision="float32")
    assert model.transformer is not None
    return {**model.transformer.state_dict(), **model.tokenizer.state_dict()}


@pytest.mark.parametrize("method", ["mage", "mage-c"])
def test_a_deterministic_run_repeats_to_the_last_bit(method: str, tmp_path: Path) -> None:
    first, second = (trained(tmp_path / name, "cuda", method, deterministic=True) for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_gpu_learns_what_a_cpu_learns(tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        trained(tmp_path / device, device, "mage", deterministic=False)
    cpu, gpu = (read_log(tmp_path / device / "tokenizer") for device in ("cpu", "cuda"))
    assert gpu[0]["loss"] == pytest.approx(cpu[0]["loss"], rel=1e-4)  # later, one vector with another code moves it
