"""Damaged checkpoints, NaN, a full disk and a second process: what a run does about them, on the smoke recipe."""

import logging
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import mage
from mage import locks, runs
from mage.recipes import named
from mage.recipes.schema import Recipe
from mage.settings import override
from mage.share import Turn
from mage.training.checkpoint import intact_checkpoint, newest_checkpoint, read_checkpoint, write_checkpoint
from mage.training.run import NonFiniteLoss
from mage.training.runlog import RunLog, read_log
from mage.training.task import Loss
from mage.training.tokenizer import TokenizerTraining
from tests.reference.contents import same, same_checkpoint
from tests.reference.launches import quiet

HOLD = """
import sys, time
from pathlib import Path
from mage import locks
with locks.run_lock(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    every = ["run.checkpoint_every=3", "run.keep_checkpoints=3", "run.log_every=2"]
    return override(named("smoke"), every)


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    runs.train_tokenizer(recipe, quiet(folder))
    return folder


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:09d}.pt"


def same_run(first: Path, second: Path) -> bool:
    """Whether two runs hold the same last checkpoint and the same model, and logged the same losses."""
    files = ("model/tokenizer.safetensors", "model/config.json")
    losses = [[(line["step"], line["loss"]) for line in read_log(run) if "loss" in line] for run in (first, second)]
    return (
        losses[0] == losses[1]
        and same_checkpoint(checkpoint(first, 12), checkpoint(second, 12))
        and all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    )


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    for file in whole.rglob("*"):
        if file.is_file():
            (tmp_path / "run" / file.relative_to(whole)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "run" / file.relative_to(whole)).write_bytes(file.read_bytes())
    return tmp_path / "run"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    """Flip a bit of a weight."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one_and_names_both(
    recipe: Recipe, whole: Path, run: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    damage(checkpoint(run, 12))
    with caplog.at_level(logging.WARNING):
        runs.train_tokenizer(recipe, quiet(run, resume=True))
    assert f"{checkpoint(run, 12)} cannot be read" in caplog.text
    assert "now called step-000000012.broken" in caplog.text
    assert f"the one before is used: {checkpoint(run, 9)}" in caplog.text
    assert same_run(run, whole)


def test_two_damaged_checkpoints_do_not_push_out_what_is_written_after_them(recipe: Recipe, run: Path) -> None:
    """Only a few of the newest are kept, and broken ones are not among them."""
    cut(checkpoint(run, 12))
    cut(checkpoint(run, 9))
    assert intact_checkpoint(run) == checkpoint(run, 6)
    more = override(recipe, ["run.checkpoint_every=1", "run.keep_checkpoints=2"])
    runs.train_tokenizer(more, quiet(run, resume=True))
    found = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert found == [
        f"step-{step:09d}.{kind}" for step, kind in ((9, "broken"), (11, "pt"), (12, "broken"), (12, "pt"))
    ]


def test_a_run_whose_checkpoints_are_all_damaged_is_told_to_start_again(run: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        cut(path)
    with pytest.raises(ValueError, match=r"step-000000006\.pt cannot be read .*none before it: start the run again"):
        intact_checkpoint(run)
    assert checkpoint(run, 6).exists()
    assert intact_checkpoint(run / "nothing") is None


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_noticed_or_changes_nothing(whole: Path, tmp_path: Path) -> None:
    path, data = tmp_path / "flipped.pt", checkpoint(whole, 12).read_bytes()
    path.write_bytes(data)
    intact, draw, noticed = read_checkpoint(path), random.Random(0), 0
    places = [*draw.sample(range(len(data)), 60), *range(len(data) - 300, len(data), 7), *range(0, 300, 7)]
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :])
        try:
            assert same(read_checkpoint(path), intact)
        except ValueError:
            noticed += 1
    assert noticed > len(places) // 2


def test_a_full_disk_is_named_and_the_checkpoint_before_is_intact(tmp_path: Path) -> None:
    write_checkpoint({"step": 2, "modules": {}}, tmp_path, 2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"disk is full: .*step-000000003\.pt was not written"):
            write_checkpoint({"step": 3, "modules": {"x": torch.ones(10_000)}}, tmp_path, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000002.pt"]
    assert intact_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-000000002.pt"


def test_a_disk_that_is_full_when_the_log_is_written_is_named(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        for work in (lambda: log.write(1, {f"metric {number}": 1.0 for number in range(20)}), log.close):
            with pytest.raises(OSError, match=r"^the disk is full: .*metrics\.jsonl was not written"):
                work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("spoiled", ["loss", "gradient"])
def test_a_batch_of_nan_stops_the_run_before_it_is_saved_and_resuming_is_exact(
    recipe: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    """As a broken memory gives it: once, in step 9, whose checkpoint comes next; also in gradients alone."""
    losses = TokenizerTraining.losses

    def spoil(self: TokenizerTraining, modules: Any, batch: dict[str, torch.Tensor], turn: Turn) -> Iterator[Loss]:
        for loss in losses(self, modules, batch, turn):
            if turn.step != 8:
                yield loss
            elif spoiled == "loss":
                yield loss._replace(value=loss.value * float("nan"))
            else:
                value = loss.value.clone()
                value.register_hook(lambda gradient: gradient * float("nan"))
                yield loss._replace(value=value)

    unclipped = override(recipe, ["tokenizer_training.clip=0"])  # the norm of gradients would show it
    reference = tmp_path / "reference"
    runs.train_tokenizer(unclipped, quiet(reference))
    with monkeypatch.context() as patch:
        patch.setattr(TokenizerTraining, "losses", spoil)
        with pytest.raises(NonFiniteLoss, match=r"not finite near step \d+; the last good checkpoint is .*000006\.pt"):
            runs.train_tokenizer(unclipped, quiet(tmp_path / "run"))
    assert newest_checkpoint(tmp_path / "run") == checkpoint(tmp_path / "run", 6)
    weights = mage.load(tmp_path / "run").tokenizer.state_dict()
    assert all(bool(weight.isfinite().all()) for weight in weights.values())
    runs.train_tokenizer(unclipped, quiet(tmp_path / "run", resume=True))
    assert same_run(tmp_path / "run", reference)


def test_two_processes_do_not_train_in_one_folder(recipe: Recipe, run: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, cwd=Path(locks.__file__).parents[1]
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ValueError, match=rf"run is in use by process {other.pid} on "):
            runs.train_tokenizer(recipe, quiet(run, resume=True))
    finally:
        other.kill()
        other.communicate()
    runs.train_tokenizer(override(recipe, ["tokenizer_training.steps=13"]), quiet(run, resume=True))
    assert not (run / ".lock").exists()


def test_a_moved_run_is_resumed(recipe: Recipe, whole: Path, run: Path) -> None:
    checkpoint(run, 12).unlink()
    run.rename(run.with_name("moved"))
    runs.train_tokenizer(recipe, quiet(run.with_name("moved"), resume=True))
    assert same_run(run.with_name("moved"), whole)


def test_time_is_counted_over_all_sessions_though_no_checkpoint_holds_it(recipe: Recipe, run: Path) -> None:
    before = [line["seconds"] for line in read_log(run) if "seconds" in line and line["step"] <= 9]
    checkpoint(run, 12).unlink()
    assert runs.train_tokenizer(recipe, quiet(run, resume=True)).seconds > before[-1]
    assert "seconds" not in read_checkpoint(checkpoint(run, 12))


def test_a_clock_that_jumps_back_changes_nothing(
    recipe: Recipe, whole: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are ordered by their steps: the times of files and of the clock say nothing."""
    checkpoint(run, 12).unlink()
    for age, step in enumerate((9, 6)):
        os.utime(checkpoint(run, step), (10**9 + 10**6 * age,) * 2)
    monkeypatch.setattr(time, "time", lambda: 10.0**8)
    runs.train_tokenizer(recipe, quiet(run, resume=True))
    assert same_run(run, whole)
