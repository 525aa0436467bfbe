"""Two processes on one machine do what one does: the same losses, one exchange a step, one stop, one set of files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import mage
from mage.recipes import named
from mage.runs import load_tokenizer, tokenize, train_tokenizer
from mage.training.checkpoint import newest_checkpoint
from mage.training.runlog import read_log
from tests.reference.every_verb import METHODS, TOKENIZERS
from tests.reference.launches import quiet

ROOT = Path(__file__).resolve().parents[2]
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def python(*arguments: object, two: bool = False) -> str:
    """Run Python, in two processes if asked; its standard output."""
    words = [sys.executable, *(TWO if two else []), *map(str, arguments)]
    result = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-20000:]
    return result.stdout


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All verbs by one process, in `one`, by two, in `two`, and by two that keep half of the weights each, in `cut`."""
    root = tmp_path_factory.mktemp("processes")
    script = ROOT / "tests" / "reference" / "every_verb.py"
    python(script, root / "one")
    python(script, root / "two", two=True)
    python(script, root / "cut", "run.strategy=fsdp", "run.checkpoints=sharded", two=True)
    return root


def numbers(run: Path) -> list[dict[str, Any]]:
    untimed = [{k: v for k, v in line.items() if k not in ("images_per_second", "seconds")} for line in read_log(run)]
    assert untimed, run
    return untimed


@pytest.mark.parametrize("processes", ["two", "cut"])
@pytest.mark.parametrize("name", [*TOKENIZERS, *METHODS, "online", "accumulated", "decoder", "finetune"])
def test_losses_and_results_are_those_of_one_process(everything: Path, name: str, processes: str) -> None:
    one, two = numbers(everything / "one" / name), numbers(everything / processes / name)
    assert [line.keys() for line in one] == [line.keys() for line in two]
    for first, second in zip(one, two, strict=True):
        # rounding may give a single vector another code, and with a codebook that moves all steps after differ a little
        loose = name == "tokenizer-adversarial" and first["step"] > 5
        for key, value in first.items():
            assert second[key] == pytest.approx(value, rel=2e-2 if loose else 1e-5, abs=2e-2 if loose else 1e-6), key


def test_the_token_cache_is_made_once_and_equal(everything: Path) -> None:
    # index.json names the tokenizer's weights, which agree to rounding only
    one, two = ((everything / name / "tokens").glob("*-00000.*") for name in ("one", "two"))
    assert {path.name: path.read_bytes() for path in one} == {path.name: path.read_bytes() for path in two}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokens")
    train_tokenizer(named("smoke"), quiet(root / "tokenizer"))
    tokenize(named("smoke"), quiet(root / "tokens"), load_tokenizer(root / "tokenizer"))
    return root


def test_accumulated_parts_are_exchanged_once_a_step(tokens: Path, tmp_path: Path) -> None:
    python(ROOT / "tests" / "reference" / "exchanges.py", tmp_path, tokens / "tokens", two=True)
    for rank in (0, 1):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found == {"exchanges_of_first_bucket": 3, "largest_difference": 0.0}


COMMON = ("--device", "cpu", "--precision", "float32", "--json")


def test_two_processes_generate_the_images_of_one(everything: Path, tmp_path: Path) -> None:
    model = everything / "one" / "mage-shared-ratio"
    for name, two in (("one", False), ("two", True)):
        words = ["-m", "mage", "generate", "--model", model, "--num-images", 5, "--batch-size", 2, *COMMON]
        python(*words, "--out", tmp_path / name, two=two)
    one, two = (sorted((tmp_path / name).glob("*.png")) for name in ("one", "two"))
    assert len(one) == 6, "a grid and five images"
    assert [path.name for path in one] == [path.name for path in two]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_two_processes_probe_as_one(everything: Path) -> None:
    words = ["-m", "mage", "probe", "--model", everything / "one" / "mage-shared-ratio", "--data", "digits", *COMMON]
    one, two = ([json.loads(line) for line in python(*words, two=two).splitlines()] for two in (False, True))
    assert two == one, "one answer, by the first process"
    for name in ("linear_probe_accuracy", "top5_accuracy"):
        assert 0 < two[0][name] == pytest.approx(one[0][name], abs=1e-5)


def test_a_command_that_trains_in_one_process_waits_for_no_other() -> None:
    """`plan` measures training steps, whose gradients several processes would exchange."""
    words = ["-m", "mage", "plan", "--recipe", "smoke", *COMMON]
    found = [json.loads(line) for line in python(*words, two=True).splitlines()]
    assert len(found) == 1
    assert found[0]["pretraining_seconds"] > 0


def test_two_processes_go_the_whole_road_of_the_demo_and_fine_tune(tmp_path: Path) -> None:
    demo = ["-m", "mage", "demo", "--recipe", "smoke", "--samples", 100, "--out", tmp_path / "demo", *COMMON]
    found = [json.loads(line) for line in python(*demo, two=True).splitlines()]
    assert [Path(one["report"]).name for one in found] == ["report.html"], "told once"
    steps = [line["step"] for line in read_log(tmp_path / "demo") if "loss" in line]
    assert steps == sorted(set(steps)), "no stage is run by each for itself"
    assert steps[-1] == 12
    words = ["-m", "mage", "finetune", "--model", tmp_path / "demo", "--data", "digits", "--out", tmp_path / "tuned"]
    words += ["--set", "optim.steps=2", "--set", "optim.batch_size=16", *COMMON]
    found = [json.loads(line) for line in python(*words, two=True).splitlines()]
    assert [(one["steps"], one["test_images"]) for one in found] == [(2, 297)]
    assert mage.load(tmp_path / "tuned").transformer is not None


MEETING = """
import sys, time
from pathlib import Path
import torch.distributed
from mage import device, distributed

new_group = torch.distributed.new_group

def slowly(**more):
    group = new_group(**more)
    if torch.distributed.get_rank() == 0:
        time.sleep(2)
        Path(sys.argv[1], "met").touch()
    return group

torch.distributed.new_group = slowly
device.start("cpu")
assert Path(sys.argv[1], "met").is_file(), "the other process is still meeting"
"""


def test_no_process_goes_its_way_while_another_is_still_meeting(tmp_path: Path) -> None:
    """One that leaves at once, as of a command that one process does, would end the meeting for the other."""
    (tmp_path / "meeting.py").write_text(MEETING)
    python(tmp_path / "meeting.py", tmp_path, two=True)


def test_a_run_of_two_processes_is_resumed_by_two_and_by_one(tmp_path: Path) -> None:
    base = ["-m", "mage", "train-tokenizer", "--recipe", "smoke", *COMMON, "--out", tmp_path / "run"]
    python(*base, "--set", "tokenizer_training.steps=6", two=True)
    python(*base, "--set", "tokenizer_training.steps=9", "--resume", two=True)
    python(*base, "--set", "tokenizer_training.steps=12", "--resume")
    assert read_log(tmp_path / "run")[-1]["step"] == 12


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(tokens: Path, tmp_path: Path) -> None:
    command = ["-m", "mage", "pretrain", "--recipe", "smoke", "--tokenizer", tokens / "tokenizer", "--device", "cpu"]
    command += ["--set", "run.log_every=1", "--out", tmp_path / "run", "--json"]
    words = [sys.executable, *TWO, *map(str, command), "--set", "pretraining.steps=100000"]
    launcher = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while len(read_log(tmp_path / "run")) < 3:
        assert launcher.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.1)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    if not children.is_file():
        launcher.terminate()
        pytest.skip("this system does not list the children of a process")
    os.kill(int(children.read_text().split()[-1]), signal.SIGTERM)
    _, error = launcher.communicate(timeout=120)
    newest = newest_checkpoint(tmp_path / "run")
    assert newest is not None, error[-2000:]
    step = int(newest.stem.removeprefix("step-"))
    assert f"stopped after step {step} of 100000" in error
    assert read_log(tmp_path / "run")[-1]["step"] == step
    longer = [*command, "--set", "pretraining.steps=100000", "--resume"]
    resumed = subprocess.Popen([sys.executable, *map(str, longer)], env=environment(), stderr=subprocess.DEVNULL)
    while read_log(tmp_path / "run")[-1]["step"] <= step:
        assert resumed.poll() is None, "the run could not be resumed"
        time.sleep(0.1)
    resumed.kill()
    resumed.wait()
    assert mage.load(tmp_path / "run").transformer is not None
