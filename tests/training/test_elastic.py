"""A run goes on with other processes, cut or whole, from checkpoints of both kinds, as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mage import distributed, runs
from mage.benchmarks.processes import CPU, loss_metrics, task
from mage.recipes import named
from mage.settings import override
from mage.training.checkpoint import newest_checkpoint
from mage.training.engine import Trainer, train
from mage.training.run import RunConfig
from mage.training.sharded import ShardedWriter
from tests.reference.launches import quiet

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Metrics of studies/distributed.py with few steps, and two processes for the losses."""
    out = tmp_path_factory.mktemp("study")
    words = [sys.executable, "studies/distributed.py", "--steps", "20", "--most", "2", "--results", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics: dict[str, float] = json.loads((out / "distributed.json").read_text())["metrics"]
    return metrics


def test_a_run_that_changes_its_processes_sees_the_same_images_and_learns_the_same(study: dict[str, float]) -> None:
    assert study["order_mismatches"] == 0
    assert study["elastic_loss_max_rel"] < 1e-5


def test_losses_of_two_processes_whole_and_cut_differ_by_rounding_only(study: dict[str, float]) -> None:
    assert {"float64_max_rel_ddp", "float64_max_rel_fsdp"} <= set(study)
    assert study["float64_max_rel"] < 1e-8
    assert study["float32_step1_rel"] < 1e-5
    assert study["float32_step20_rel"] < 1e-3


def test_bytes_between_two_processes_are_those_of_the_formula(study: dict[str, float]) -> None:
    if not Path("/proc/self/io").is_file():
        pytest.skip("this system does not count bytes")
    assert 0.99 < study["bytes_over_formula"] < 1.05


def test_muon_moves_cut_matrices_like_whole_ones(tmp_path: Path) -> None:
    found = loss_metrics(tmp_path, steps=10, most=2, names=("mage",), optimizer="muon")
    assert found["float64_max_rel_fsdp"] < 1e-8


def test_a_checkpoint_that_is_only_half_written_is_not_taken_for_one(tmp_path: Path) -> None:
    run = RunConfig(checkpoints="sharded", observe_every=100, checkpoint_every=2)
    train(task("mae", 4), run, tmp_path, seed=0, settings={}, precision="float32", device=CPU, progress=False)
    newest = newest_checkpoint(tmp_path)
    assert newest == tmp_path / "checkpoints" / "step-000000004.dcp"
    newest.rename(newest.with_name(f".{newest.name}.tmp"))  # the name it has while it is written
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-000000002.dcp"


def test_tensors_in_a_checkpoint_are_those_of_its_step_although_training_goes_on(tmp_path: Path) -> None:
    trainer = Trainer(task("mae", 4), tmp_path, 0, {}, precision="float32", device=CPU)
    before = {name: value.clone() for name, value in trainer.task.modules["mage"].state_dict().items()}
    writer = ShardedWriter(tmp_path)
    writer.begin(trainer._state(), 1, keep=2)
    with torch.no_grad():
        for parameter in trainer.task.modules["mage"].parameters():
            parameter.zero_()
    writer.finish()
    trainer.restore(newest_checkpoint(tmp_path))
    after = trainer.task.modules["mage"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("damage", ["lost", "flipped"])
def test_of_a_damaged_checkpoint_in_parts_the_one_before_is_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = override(named("smoke"), ["run.checkpoints=sharded", "run.checkpoint_every=6"])
    runs.train_tokenizer(recipe, quiet(tmp_path / "run"))
    newest = newest_checkpoint(tmp_path / "run")
    assert newest is not None
    for file in newest.glob("*.safetensors"):
        if damage == "lost":
            file.unlink()
        else:
            content = bytearray(file.read_bytes())
            content[-5] ^= 1
            file.write_bytes(content)
    longer = override(recipe, ["tokenizer_training.steps=15"])
    runs.train_tokenizer(longer, quiet(tmp_path / "run", resume=True))
    assert "step-000000012.dcp cannot be read" in caplog.text
    assert "step-000000006.dcp" in caplog.text
    assert newest.with_suffix(".broken").is_dir()
    assert newest_checkpoint(tmp_path / "run") == newest.with_name("step-000000015.dcp")


@pytest.mark.parametrize("change", ["tokenizer.width=32", "tokenizer_loss.adversarial.weight=0"])
def test_a_checkpoint_in_parts_of_other_settings_is_not_called_damaged(change: str, tmp_path: Path) -> None:
    adversarial = ["tokenizer_loss.adversarial.weight=0.1", "tokenizer_loss.adversarial.discriminator.levels=1"]
    recipe = override(named("smoke"), ["run.checkpoints=sharded", *adversarial])
    runs.train_tokenizer(recipe, quiet(tmp_path / "run"))
    with pytest.raises(ValueError, match=f"started with other settings: {change.partition('=')[0]}: "):
        runs.train_tokenizer(override(recipe, [change]), quiet(tmp_path / "run", resume=True))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("strategy=zero", "run.strategy must be"),
        ("checkpoints=none", "run.checkpoints must be"),
        ("timeout=0", "run.timeout must lie from 1"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(change: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        override(named("smoke"), [f"run.{change}"])


@pytest.mark.parametrize("name", ["compile", "strategy", "checkpoints"])
def test_a_choice_is_checked_where_no_recipe_is_read(name: str) -> None:
    """By the class itself: in tests, annotations are checked too."""
    given = SimpleNamespace(**vars(RunConfig()) | {name: "some"})
    with pytest.raises(ValueError, match=rf"run\.{name} must be .* not 'some'"):
        RunConfig.__post_init__(given)  # type: ignore[arg-type]


def test_all_processes_finish_a_checkpoint_together_whoever_saw_its_end_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has seen the end of the writing must still enter the exchanges of `finish`, where others wait."""
    exchanges: list[str] = []
    monkeypatch.setattr(distributed, "any_process", lambda flag: exchanges.append("any") or flag)
    writer = ShardedWriter(tmp_path)
    writer.begin({"modules": {"net": {"w": torch.ones(3)}}, "optimizers": {}, "averages": {}, "step": 4}, 4, keep=2)
    writer.publish()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000004.dcp"]
    writer.finish()
    assert exchanges == ["any"]
    writer.finish()
    assert exchanges == ["any"], "once for each checkpoint"
