"""The training loop: resuming, stopping, logging, on the smoke recipe."""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import mage
from mage import images, rng, runs
from mage.data.own_tokens import write_tokens
from mage.data.token_cache import TokenCache
from mage.device import exact
from mage.recipes import FINETUNES, named
from mage.recipes.resolve import from_yaml
from mage.recipes.schema import Recipe
from mage.runs import Launch, pace
from mage.settings import override
from mage.store.folder import write_settings
from mage.training import engine
from mage.training.checkpoint import newest_checkpoint, read_checkpoint
from mage.training.optim import OptimConfig, WeightAverage, learning_rate
from mage.training.run import Interrupted, NonFiniteLoss
from mage.training.runlog import read_log
from mage.training.task import Task
from tests.reference.contents import same_checkpoint
from tests.reference.launches import quiet


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return named("smoke")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tokenizer"
    runs.train_tokenizer(recipe, quiet(folder))
    return folder


def pretrain(recipe: Recipe, tokenizer: Path, out: Path, *, resume: bool = False) -> None:
    model = runs.load_tokenizer(tokenizer)
    cache = runs.tokenize(recipe, quiet(out.parent / "tokens"), model)
    runs.pretrain(recipe, quiet(out, resume=resume), model, cache=cache)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(mage.load(folder).transformer.state_dict())


def assert_same_run(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert all(torch.equal(a[name], b[name]) for name in a)
    newest = [newest_checkpoint(run) for run in (first, second)]
    assert newest[0] is not None
    assert newest[1] is not None
    assert same_checkpoint(newest[0], newest[1]), "they differ in some field"
    losses = [[(line["step"], line["loss"]) for line in read_log(run) if "loss" in line] for run in (first, second)]
    assert losses[0] == losses[1]


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(
    recipe: Recipe, tokenizer: Path, tmp_path: Path
) -> None:
    pretrain(recipe, tokenizer, tmp_path / "whole")
    pretrain(recipe, tokenizer, tmp_path / "cut")
    newest = newest_checkpoint(tmp_path / "cut")
    assert newest is not None
    newest.unlink()  # as if the process had died between step 6 and step 12
    pretrain(recipe, tokenizer, tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("command", ["train-tokenizer", "pretrain"])
def test_a_killed_run_resumes_as_if_nothing_had_happened(tokenizer: Path, tmp_path: Path, command: str) -> None:
    more = ["--set", "run.checkpoint_every=1", "--set", "pretraining.steps=40", "--set", "tokenizer_training.steps=40"]
    arguments = [sys.executable, "-m", "mage", command, "--recipe", "smoke", "--json", *more]
    arguments += ["--tokenizer", str(tokenizer)] if command == "pretrain" else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*arguments, "--out", str(tmp_path / "whole")], check=True, env=environment, capture_output=True)
    cut = tmp_path / "cut"
    process = subprocess.Popen([*arguments, "--out", str(cut)], env=environment, stdout=subprocess.DEVNULL)
    while (newest := newest_checkpoint(cut)) is None or newest.name < "step-000000005.pt":
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*arguments, "--out", str(cut), "--resume"], check=True, env=environment, capture_output=True)
    first, second = (mage.load(run) for run in (tmp_path / "whole", cut))
    part = "transformer" if command == "pretrain" else "tokenizer"
    expected, found = (getattr(model, part).state_dict() for model in (first, second))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_ctrl_c_saves_and_can_be_resumed(recipe: Recipe, tokenizer: Path, tmp_path: Path) -> None:
    pretrain(recipe, tokenizer, tmp_path / "whole")
    model = runs.load_tokenizer(tokenizer)
    cache = runs.tokenize(recipe, quiet(tmp_path / "tokens"), model)

    class Stopper:
        """Presses Ctrl-C while step 5 is being prepared."""

        def __init__(self) -> None:
            self.tokens, self.calls = cache.tokens, 0

        def __call__(self, *arguments: object) -> torch.Tensor:
            self.calls += 1
            if self.calls == 5:
                signal.raise_signal(signal.SIGINT)
            return self.tokens(*arguments)  # type: ignore[arg-type]

    cache.tokens = Stopper()  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="after step 5 of 12"):
        runs.pretrain(recipe, quiet(tmp_path / "cut"), model, cache=cache)
    assert newest_checkpoint(tmp_path / "cut") == tmp_path / "cut" / "checkpoints" / "step-000000005.pt"
    pretrain(recipe, tokenizer, tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_network_must_see_some_tokens(recipe: Recipe, tokenizer: Path, tmp_path: Path) -> None:
    """Of 16 tokens, ceil(0.95 x 16) are all."""
    changes = ["method.masking.low=0.95", "method.masking.mode=0.95", "method.masking.std=0"]
    with pytest.raises(ValueError, match=r"method\.masking\.low=0\.95 drops all 16 tokens before the encoder"):
        pretrain(override(recipe, changes), tokenizer, tmp_path / "run")
    pretrain(override(recipe, [*changes, "method.masking.drop=false"]), tokenizer, tmp_path / "run")


@pytest.mark.parametrize("per_image", ["true", "false"])
def test_accumulated_parts_give_the_gradient_of_the_whole_batch(
    recipe: Recipe, tokenizer: Path, tmp_path: Path, per_image: str
) -> None:
    """Masks belong to the step, and each part counts by how many of the step's masked tokens it has."""
    recipe = override(recipe, ["model.dropout=0", f"method.masking.per_image={per_image}", "run.log_every=1"])
    parts = override(recipe, ["pretraining.accumulation=4"])
    model = runs.load_tokenizer(tokenizer)
    cache = runs.tokenize(recipe, quiet(tmp_path / "tokens"), model)
    for name, one in (("whole", recipe), ("parts", parts)):
        runs.pretrain(one, quiet(tmp_path / name, precision="float32"), model, cache=cache)
    whole, cut = ([line for line in read_log(tmp_path / name) if "loss" in line] for name in ("whole", "parts"))
    for first, second in zip(whole, cut, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-4)


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(
    recipe: Recipe, tokenizer: Path, tmp_path: Path
) -> None:
    wild = override(recipe, ["pretraining.base_learning_rate=1e30", "pretraining.clip=0", "run.checkpoint_every=1"])
    with pytest.raises(NonFiniteLoss, match=r"last good checkpoint is .*step-00000000\d\.pt"):
        pretrain(wild, tokenizer, tmp_path / "wild")
    state = torch.load(newest_checkpoint(tmp_path / "wild"), weights_only=True)  # type: ignore[arg-type]
    assert state["step"] < 12


def test_a_run_folder_is_not_overwritten_and_settings_cannot_change(
    recipe: Recipe, tokenizer: Path, tmp_path: Path
) -> None:
    pretrain(recipe, tokenizer, tmp_path / "run")
    with pytest.raises(ValueError, match="add --resume"):
        pretrain(recipe, tokenizer, tmp_path / "run")
    other = override(recipe, ["pretraining.base_learning_rate=0.5"])
    with pytest.raises(ValueError, match=r"pretraining\.base_learning_rate: 0\.01 is not 0\.5"):
        pretrain(other, tokenizer, tmp_path / "run", resume=True)
    with pytest.raises(
        ValueError, match="12 steps long and can only become longer: give at least as many steps, not 8"
    ):
        pretrain(override(recipe, ["pretraining.steps=8"]), tokenizer, tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="no checkpoint to resume"):
        pretrain(recipe, tokenizer, tmp_path / "nothing", resume=True)


def test_a_run_begun_before_a_setting_existed_can_be_resumed(recipe: Recipe, tokenizer: Path, tmp_path: Path) -> None:
    pretrain(recipe, tokenizer, tmp_path / "run")
    newest = newest_checkpoint(tmp_path / "run")
    assert newest is not None
    state = torch.load(newest, weights_only=True)
    del state["settings"]["model"]["position_init"]
    torch.save(state, newest)
    pretrain(recipe, tokenizer, tmp_path / "run", resume=True)


def test_resume_refuses_only_what_changes_learning(
    recipe: Recipe, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **more: None)
    pretrain(recipe, tokenizer, tmp_path / "run")
    changes = ["run.log_every=1", "run.observe_every=3", "run.compile=on", "sampling.steps=2", "name=other"]
    other = override(recipe, changes)
    pretrain(other, tokenizer, tmp_path / "run", resume=True)


def test_a_batch_that_no_longer_fits_may_be_cut_into_parts_when_a_run_goes_on(
    recipe: Recipe, tokenizer: Path, tmp_path: Path
) -> None:
    pretrain(recipe, tokenizer, tmp_path / "run")
    pretrain(override(recipe, ["pretraining.accumulation=2"]), tokenizer, tmp_path / "run", resume=True)
    own = ["tokenizer_loss.adversarial.weight=0.1", "tokenizer_loss.adversarial.start=0"]
    own += ["tokenizer_loss.adversarial.discriminator.levels=1", "tokenizer_loss.adversarial.discriminator.width=8"]
    counted = override(recipe, own)  # the weight of a discriminator is that of a part
    runs.train_tokenizer(counted, quiet(tmp_path / "tokenizer"))
    with pytest.raises(ValueError, match="accumulation: 1 is not 2"):
        runs.train_tokenizer(
            override(counted, ["tokenizer_training.accumulation=2"]), quiet(tmp_path / "tokenizer", resume=True)
        )


def test_a_run_goes_on_in_its_own_precision(
    recipe: Recipe, tokenizer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also on a machine where another one is usual."""
    model = runs.load_tokenizer(tokenizer)
    cache = runs.tokenize(recipe, quiet(tmp_path / "tokens"), model)
    runs.pretrain(recipe, quiet(tmp_path / "run", precision="bf16"), model, cache=cache)
    resumed = quiet(tmp_path / "run", resume=True)
    assert resumed.resolved_precision() == "bf16"
    runs.pretrain(recipe, resumed, model, cache=cache)
    assert "goes on in" not in caplog.text
    asked = quiet(tmp_path / "run", resume=True, precision="float32")
    assert asked.resolved_precision() == "float32"
    runs.pretrain(recipe, asked, model, cache=cache)
    assert "began in bf16 and goes on in float32" in caplog.text


def test_a_run_goes_on_with_its_tokens_alone(
    recipe: Recipe, tokenizer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the same images there are many: other cuts, views and seeds; of the user's own, the integers themselves."""
    model = runs.load_tokenizer(tokenizer)
    views = override(recipe, ["data.views=2", "data.transform.augmentation=flip"])
    cache = runs.tokenize(views, quiet(tmp_path / "two"), model)
    runs.pretrain(recipe, quiet(tmp_path / "run"), model, cache=cache)
    assert "data.transform, 'none 8x8', has no effect" in caplog.text
    assert from_yaml(tmp_path / "run" / "recipe.yaml").data.views == 2, "what was trained on"
    runs.pretrain(recipe, quiet(tmp_path / "run", resume=True), model, cache=cache)
    other = runs.tokenize(override(views, ["seed=5"]), quiet(tmp_path / "other"), model)
    with pytest.raises(ValueError, match=r"cache\.seed: 0 is not 5"):
        runs.pretrain(recipe, quiet(tmp_path / "run", resume=True), model, cache=other)
    for name, seed in (("first", 0), ("second", 1)):
        ids = torch.randint(16, (40, 12), generator=rng.generator(seed))
        write_tokens(tmp_path / name, ids, num_codes=16, name="song")
    runs.pretrain(recipe, quiet(tmp_path / "songs"), cache=TokenCache(tmp_path / "first"))
    runs.pretrain(recipe, quiet(tmp_path / "songs", resume=True), cache=TokenCache(tmp_path / "first"))
    with pytest.raises(ValueError, match="other settings: tokens"):
        runs.pretrain(recipe, quiet(tmp_path / "songs", resume=True), cache=TokenCache(tmp_path / "second"))


def test_a_finished_run_gets_longer_with_more_steps(recipe: Recipe, tokenizer: Path, tmp_path: Path) -> None:
    pretrain(recipe, tokenizer, tmp_path / "run")
    pretrain(override(recipe, ["pretraining.steps=15"]), tokenizer, tmp_path / "run", resume=True)
    assert read_log(tmp_path / "run")[-1]["step"] == 15
    assert from_yaml(tmp_path / "run" / "recipe.yaml").pretraining.steps == 15
    with pytest.raises(ValueError, match="with other settings"):
        pretrain(override(recipe, ["pretraining.batch_size=8"]), tokenizer, tmp_path / "run", resume=True)
    assert from_yaml(tmp_path / "run" / "recipe.yaml").pretraining.steps == 15, "a refused call changes nothing"
    assert newest_checkpoint(tmp_path / "run") == tmp_path / "run" / "checkpoints" / "step-000000015.pt"


def test_a_longer_run_keeps_the_sampler_that_was_tuned_for_it(recipe: Recipe, tokenizer: Path, tmp_path: Path) -> None:
    pretrain(recipe, tokenizer, tmp_path / "run")
    model, folder = mage.load(tmp_path / "run"), tmp_path / "run" / "model"
    model.recipe["sampling"] |= {"steps": 7}
    write_settings(model.parts, folder)
    pretrain(override(recipe, ["pretraining.steps=13"]), tokenizer, tmp_path / "run", resume=True)
    assert mage.load(tmp_path / "run").sampling.steps == recipe.sampling.steps, "of no search"
    model.notes["sampling_tuned"] = {"metric": "fd", "value": 3.0}
    write_settings(model.parts, folder)
    pretrain(override(recipe, ["pretraining.steps=15"]), tokenizer, tmp_path / "run", resume=True)
    kept = mage.load(tmp_path / "run")
    assert (kept.sampling.steps, kept.notes["sampling_tuned"]) == (7, {"metric": "fd", "value": 3.0})
    assert from_yaml(tmp_path / "run" / "recipe.yaml").sampling == recipe.sampling


def test_the_pace_counts_the_time_of_all_its_steps(
    recipe: Recipe, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a checkpoint between two lines of the log."""
    times = itertools.count()
    monkeypatch.setattr("mage.training.engine.time", SimpleNamespace(perf_counter=lambda: float(next(times))))
    changes = ["run.log_every=4", "run.checkpoint_every=3", "run.observe_every=12", "pretraining.steps=12"]
    pretrain(override(recipe, changes), tokenizer, tmp_path / "run")
    lines = [line for line in read_log(tmp_path / "run") if "images_per_second" in line]
    before = (0, 0.0)
    for line in lines:
        steps, seconds = line["step"] - before[0], line["seconds"] - before[1]
        assert line["images_per_second"] == pytest.approx(steps * recipe.pretraining.batch_size / seconds)
        before = line["step"], line["seconds"]


def test_resuming_a_finished_tokenizer_run_keeps_its_notes(recipe: Recipe, tmp_path: Path) -> None:
    runs.train_tokenizer(recipe, quiet(tmp_path / "run"))
    before = mage.load(tmp_path / "run").notes
    assert before["tokenizer"]["psnr_db"] > 0
    runs.train_tokenizer(recipe, quiet(tmp_path / "run", resume=True))
    assert mage.load(tmp_path / "run").notes == before


def test_a_run_can_be_resumed_where_its_data_has_been_moved(tmp_path: Path) -> None:
    for number in range(40):
        images.save_png(tmp_path / "here" / f"{number}.png", torch.rand(1, 8, 8, generator=rng.generator(number)))
    start = override(named("smoke"), [f"data.name={tmp_path / 'here'}", "tokenizer_training.steps=6"])
    runs.train_tokenizer(start, quiet(tmp_path / "run"))
    (tmp_path / "here").rename(tmp_path / "there")
    longer = override(start, [f"data.name={tmp_path / 'there'}", "tokenizer_training.steps=8"])
    assert runs.train_tokenizer(longer, quiet(tmp_path / "run", resume=True)).steps == 8
    (tmp_path / "there" / "3.png").unlink()
    with pytest.raises(ValueError, match="started with other settings: content"):
        runs.train_tokenizer(longer, quiet(tmp_path / "run", resume=True))


@pytest.mark.parametrize("device", ["cpu:0", "xla:7"])
def test_a_checkpoint_of_any_device_is_read_to_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    path = tmp_path / "step-000000001.pt"
    monkeypatch.setattr("torch.serialization.location_tag", lambda storage: device)  # as if it were written there
    torch.save({"step": 1, "modules": {}, "x": torch.ones(1)}, path)
    with pytest.raises(RuntimeError, match=device):
        torch.load(path, weights_only=True)
    assert read_checkpoint(path)["x"].device == torch.device("cpu")


def test_sigterm_saves_like_ctrl_c(tokenizer: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "mage", "pretrain", "--recipe", "smoke", "--json", "--tokenizer", str(tokenizer)]
    folder = tmp_path / "my run {1..2}"
    arguments += ["--set", "pretraining.steps=100000", "--set", "run.log_every=1", "--out", str(folder)]
    process = subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    while not any("loss" in line for line in read_log(folder)):
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    again = shlex.split(error.strip().splitlines()[-1].removeprefix("continue with: "))
    assert again == ["mage", *arguments[3:], "--resume"]
    assert shlex.split(json.loads((folder / "run.json").read_text())["command"]) == ["mage", *arguments[3:]]
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert f"after step {int(newest.stem.removeprefix('step-'))} of 100000" in error


def test_training_and_its_frozen_networks_are_on_the_device_of_the_launch(
    recipe: Recipe, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device without a machine: networks that are sent there, and the loop that is told of it."""
    there, moved = torch.device("meta"), []

    class Reached(Exception):
        pass

    def train(task: Task, run: object, folder: Path, **more: object) -> None:
        assert more["device"] == there
        raise Reached

    frozen, model = runs.load_tokenizer(tokenizer), mage.build(recipe.model, tokenizer=recipe.tokenizer)
    tuning = override(FINETUNES["small"](), ["data.name=digits", "optim.batch_size=16", "optim.steps=2"])
    monkeypatch.setattr(Launch, "start", lambda self: there)
    monkeypatch.setattr(mage.Mage, "to", lambda self, device: moved.append((self, device)))
    monkeypatch.setattr("mage.runs.launch.train", train)
    with pytest.raises(Reached):
        runs.train_tokenizer(recipe, quiet(tmp_path / "tokenizer"))
    with pytest.raises(Reached):
        runs.pretrain(recipe, quiet(tmp_path / "online"), frozen)
    with pytest.raises(Reached):
        runs.finetune(tuning, quiet(tmp_path / "finetune"), model)
    assert moved == [(frozen, there), (model, there)]


def test_the_caller_keeps_his_random_numbers(recipe: Recipe, tokenizer: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    pretrain(recipe, tokenizer, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_a_run_folder_holds_what_the_manual_says(recipe: Recipe, tokenizer: Path, tmp_path: Path) -> None:
    pretrain(recipe, tokenizer, tmp_path / "run")
    for name in ("recipe.yaml", "metrics.jsonl", "checkpoints", "samples", "model/config.json"):
        assert (tmp_path / "run" / name).exists(), name
    lines = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "loss", "lr", "grad_norm", "images_per_second", "seconds"} <= lines[0].keys()
    assert "valid/loss" in lines[-1]


def test_learning_rate_rises_and_falls_as_in_the_paper() -> None:
    config = OptimConfig(batch_size=4096, base_learning_rate=1.5e-4, warmup=0.1)
    rates = [learning_rate(config, step, 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(2.4e-3)
    assert rates.index(max(rates)) == 100
    assert rates[50] == pytest.approx(2.4e-3 * 51 / 101)
    assert rates[550] == pytest.approx(1.2e-3)  # half way down the cosine
    assert rates[-1] < 1e-7 + 2.4e-3 * 1e-5


def test_weight_average_follows_the_textbook_recursion() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, 0.9)
    expected = 0.0
    for step in range(30):
        value = float(step)
        torch.nn.init.constant_(module.weight, value)
        average.update_parameters(module)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = value if step == 0 else decay * expected + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
    early = WeightAverage(module, 0.9)
    early.update_parameters(module)
    average.load_state_dict(early.state_dict())
    torch.nn.init.constant_(module.weight, 99.0)
    average.update_parameters(module)
    assert average.module.weight.item() == pytest.approx((2 * 29 + 9 * 99) / 11), "the steps are those that were loaded"


@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("bf16", True)])
def test_float32_on_a_gpu_is_exact_in_the_backward_pass_too(
    precision: str, allowed: bool, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    backward = Tensor.backward

    def watched(loss: Tensor) -> None:
        seen.append(torch.backends.cudnn.allow_tf32)
        backward(loss)

    monkeypatch.setattr(Tensor, "backward", watched)
    monkeypatch.setattr(engine, "exact", lambda precision, _: exact(precision, torch.device("cuda")))
    pace.pretraining_pace(recipe, torch.device("cpu"), precision)
    assert seen
    assert set(seen) == {allowed}
