"""The demo: the packaged model first, then a training that keeps to what is left of the minutes."""

import json
import math
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import mage
from mage import rng
from mage.cli import demo
from mage.cli.main import main
from mage.models import MAGEConfig
from mage.recipes import named
from mage.recipes.resolve import from_yaml
from mage.runs import fitted
from mage.runs.pace import Pace
from mage.store import folder as store
from mage.store import packaged
from mage.store.example_images import write_examples
from mage.store.packaged import Card, weights_hash

QUIET = ("--device", "cpu", "--precision", "float32")


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packaged model `digits` of random weights, and a record of what minutes bring."""
    folder = tmp_path / "package"
    monkeypatch.setattr(packaged, "FOLDER", folder)
    monkeypatch.setattr(packaged, "MINUTES", folder / "minutes.json")
    recipe = named("mnist5k")
    assert recipe.tokenizer is not None
    tokenizer = replace(recipe.tokenizer, width=8, blocks=0, decoder_blocks=0)
    config = MAGEConfig(
        16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2, num_classes=3, class_input="decoder"
    )
    model = mage.build(config, tokenizer=tokenizer, precision="float32", device="cpu")
    store.write(model.parts, folder / "digits", dtype=torch.bfloat16)
    record = {"commit": "abc", "command": "x", "machine": "y", "seed": 0, "seconds": 1.0, "protocol": {}}
    record |= {"metrics": {"psnr_db": 9.0, "linear_probe_accuracy": 0.91}}
    pictures = torch.randint(256, (16, 1, 28, 28), generator=rng.generator(0, "pictures")).byte()
    write_examples(folder / "digits", pictures)
    hashed = weights_hash(folder / "digits")
    card = Card("digits", "drawings", "MIT", hashed, record, [], [str(number % 10) for number in range(16)])
    (folder / "digits" / packaged.CARD).write_text(json.dumps(asdict(card)))
    metrics = {f"minutes{m}.linear_probe_mean_accuracy": 0.8 + m / 100 for m in (2, 5, 10)}
    (folder / "minutes.json").write_text(json.dumps({"machine": "a <slow> laptop", "metrics": metrics}))


def test_no_minutes_show_the_packaged_model_alone(
    digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Also where a folder of the same name lies in the working directory."""
    (tmp_path / "here" / "digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    main(["demo", "--minutes", "0", "--json", "--out", str(tmp_path / "out"), *QUIET])
    said = json.loads(capsys.readouterr().out)
    assert Path(said["report"]) == tmp_path / "out" / "packaged" / "report.html"
    assert said["metrics"] == {"psnr_db": 9.0, "linear_probe_accuracy": 0.91}, "those of the card"
    assert {"reconstruct_and_edit", "generate", "features"} == set(said["timings"])
    page = Path(said["report"]).read_text()
    assert page.count("<img") == 6, "samples, classes, reconstructions by ratio and of the tokenizer, edits, neighbours"
    assert not list((tmp_path / "out").glob("recipe.yaml")), "nothing is trained"


def test_training_keeps_to_the_minutes_and_is_shown_beside_the_packaged_model(
    digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Minutes too short for the recipe's batch and depth: both are halved until there is time for enough steps."""
    asked: list[tuple[str, float, bool]] = []

    def fitted(
        recipe: Any, launch: Any, training: str, size: int, minutes: float, *, shrink: bool, reading: Any, changes: Any
    ) -> Any:
        assert (reading is not None) == (training == "tokenizer_training"), "MAGE reads cached tokens"
        asked.append((training, minutes, shrink))
        small = named("smoke")
        assert recipe.tokenizer is not None
        tokenizer = replace(recipe.tokenizer, width=8, blocks=0, decoder_blocks=0)
        optim = replace(getattr(small, training), steps=4)
        return replace(recipe, tokenizer=tokenizer, model=replace(recipe.model, depth=1), **{training: optim})

    monkeypatch.setattr(demo, "fitted_recipe", fitted)
    out = tmp_path / "out"
    main(["demo", "--minutes", "9", "--samples", "100", "--json", "--out", str(out), *QUIET])
    said = json.loads(capsys.readouterr().out)
    (first, tokenizer, _), (second, mage_, _) = asked
    assert (first, second) == ("tokenizer_training", "pretraining")
    assert all(shrink for _, _, shrink in asked)
    assert 0 < tokenizer < demo.TOKENIZER_SHARE * 9
    assert tokenizer < mage_ < 9
    assert "MAGE, 1 blocks: 4 steps of 16 images" in said["protocol"]["training"]
    page = Path(said["report"]).read_text()
    assert page.count("<h3>The packaged model</h3>") == 6
    assert page.count("<h3>Trained in this run</h3>") == 5, "neighbours are drawn of the examples alone"
    assert "packaged model: 9.0" in page.replace("\N{NO-BREAK SPACE}", " "), "numbers are compared, too"
    assert "More minutes" in page
    assert "a &lt;slow&gt; laptop" in page
    assert from_yaml(out / "recipe.yaml").pretraining.steps == 4
    with pytest.raises(SystemExit):
        main(["demo", "--minutes", "30", "--out", str(out), *QUIET])
    assert "holds a demo of 9 minutes: give --out another folder for one of 30" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["demo", "--recipe", "mnist5k", "--out", str(out), *QUIET])
    assert "give --out another folder for one of as many steps as its recipe says" in capsys.readouterr().err


def test_a_demo_of_an_earlier_version_is_told_and_keeps_no_minutes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tokenizer" / "checkpoints").mkdir(parents=True)
    (tmp_path / "tokenizer" / "checkpoints" / "step-000000003.pt").write_bytes(b"of a run")
    demo._keep_to(tmp_path, 30)
    assert "holds a demo of an earlier version, which goes on" in caplog.text
    assert not (tmp_path / demo.MINUTES_FILE).exists()


def test_too_little_time_is_refused_with_what_is_needed(
    digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(demo, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr(demo, "Clock", partial(demo.Clock, start=0.0))
    monkeypatch.setattr(fitted, "tokenizer_pace", lambda *_: Pace(1.0, 2))
    monkeypatch.setattr(fitted, "smaller", lambda *_: None)
    with pytest.raises(SystemExit):
        main(["demo", "--minutes", "1", "--out", str(tmp_path / "out"), *QUIET])
    complaint = capsys.readouterr().err
    assert "of 1 minutes 0.2 are left for this training" in complaint, "three tenths of forty seconds"
    needed = int(complaint.split("give at least --minutes ")[1].split()[0])
    whole = 200 / 0.85 / 60 / demo.TOKENIZER_SHARE + demo.SHOW_SECONDS / 60  # 200 steps of a second, and showing
    assert needed == math.ceil(whole)
    assert (tmp_path / "out" / "packaged" / "report.html").exists(), "what was there to show was shown"


def test_steps_beside_minutes_are_refused_before_anything_is_trained(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--minutes", "9", "--set", "pretraining.steps=9", "--out", str(tmp_path / "out"), *QUIET])
    assert "--set pretraining.steps=9 cannot be given with them" in capsys.readouterr().err
    assert not (tmp_path / "out" / "tokenizer").exists()


def test_a_recipe_that_needs_a_trained_model_is_refused_before_anything_is_trained(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--recipe", "cifar10-labels", "--out", str(tmp_path / "out"), *QUIET])
    assert "a model that is trained; a demo starts from none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("showing", [10.0, 1000.0])
def test_the_minutes_that_are_said_to_be_needed_are_enough(monkeypatch: pytest.MonkeyPatch, showing: float) -> None:
    """Of each minute more the tokenizer takes its share, and showing half where it would take more than that."""
    now = [0.0]
    monkeypatch.setattr(demo.time, "perf_counter", lambda: now[0])

    def left(minutes: float) -> tuple[demo.Clock, float]:
        now[0] = 0.0
        clock = demo.Clock(minutes, start=0.0)
        clock.keep(showing)
        now[0] = 60 * demo.TOKENIZER_SHARE * clock.left()
        return clock, clock.left()

    clock, before = left(2)
    enough = clock.needed(4.0 - before, "pretraining")
    assert left(enough)[1] >= 4.0 > left(enough - 1)[1]


def test_a_slow_machine_leaves_training_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where showing would take all that is left, the demo is longer than asked for, and is not refused."""
    now = [0.0]
    monkeypatch.setattr(demo.time, "perf_counter", lambda: now[0])
    clock = demo.Clock(2, start=0.0)
    assert clock.left() == pytest.approx((120 - demo.SHOW_SECONDS) / 60)
    now[0] = 40.0
    clock.keep(10.0)
    assert clock.left() == pytest.approx((80 - demo.SHOW_SECONDS - 10) / 60)
    clock.keep(100.0)
    assert clock.left() == pytest.approx(40 / 60)
    now[0] = 200.0
    clock.keep(1.0)
    assert clock.left() == 0


def test_other_images_have_no_packaged_model_to_show(digits: None, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--minutes", "0", "--recipe", "smoke", "--out", str(tmp_path / "out"), *QUIET])
    assert "leave out --recipe and --data" in capsys.readouterr().err


def test_a_recipe_without_minutes_runs_its_own_steps(tmp_path: Path) -> None:
    options = demo.Options(out=tmp_path)
    assert demo.minutes_of(options) == demo.MINUTES
    assert demo.minutes_of(replace(options, recipe="cifar10")) is None
    assert demo.minutes_of(replace(options, set=("pretraining.steps=9",))) is None
    assert demo.minutes_of(replace(options, recipe="cifar10", minutes=7)) == 7
