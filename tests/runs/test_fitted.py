"""--minutes: measured once, written into recipe.yaml, kept by --resume, and refused where nothing can be timed."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import mage
from mage import images, runs
from mage.data.datasets import load_dataset
from mage.data.tar_images import TarDataset
from mage.data.transforms import TransformConfig
from mage.recipes import named
from mage.recipes.resolve import from_yaml
from mage.recipes.schema import Recipe
from mage.runs import fitted
from mage.runs.fitted import check_words, fitted_recipe
from mage.runs.pace import Pace
from mage.runs.reading import Reading
from tests.reference.launches import quiet


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batches of the steps that are timed; each step takes 0.2 s."""
    batches: list[int] = []

    def pace(recipe: object, device: object, precision: str) -> Pace:
        batches.append(recipe.tokenizer_training.batch_size)  # type: ignore[attr-defined]
        return Pace(0.2, 2)

    monkeypatch.setattr(fitted, "tokenizer_pace", pace)
    monkeypatch.setattr(fitted, "pretraining_pace", pace)
    return batches


def test_what_is_chosen_is_told_with_its_time(
    timed: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="mage")
    recipe = fitted_recipe(named("cifar10"), quiet(tmp_path / "run"), "tokenizer_training", 300, 2)
    assert recipe.tokenizer_training.steps == 510
    assert timed == [32]
    assert (
        "fitted to 300 images: 8 x 8 tokens of 128 codes, 19,200 tokens in one pass; 510 steps of 32 images, "
        "54.4 passes over the data; about 2 min"
    ) in caplog.text
    fitted_recipe(named("cifar10"), quiet(tmp_path / "run"), "pretraining", 300, 9000)
    assert "would only repeat these images" in caplog.text
    assert "2 blocks" in caplog.text


def test_a_training_from_given_weights_keeps_its_sizes_and_takes_its_share(timed: list[int], tmp_path: Path) -> None:
    """Of 300 images, 128 codes would be enough; those that the weights have stay. A step takes 0.2 s."""
    recipe, launch = named("cifar10"), quiet(tmp_path / "run")
    found = fitted_recipe(recipe, launch, "tokenizer_training", 300, 2, share=0.25, continued=True)
    assert found.tokenizer == recipe.tokenizer
    assert (found.tokenizer_training.steps, found.tokenizer_training.batch_size) == (127, 32)
    found = fitted_recipe(recipe, launch, "pretraining", 300, 900, continued=True)
    assert found.model == recipe.model
    assert found.pretraining.steps == pytest.approx(100 * 300 / found.pretraining.batch_size, abs=1)


def test_a_resumed_run_keeps_its_schedule_and_times_nothing(timed: list[int], tmp_path: Path) -> None:
    recipe = named("smoke")
    mine = replace(recipe, tokenizer_training=replace(recipe.tokenizer_training, steps=777))
    (tmp_path / "recipe.yaml").write_text(mage.recipes.schema.to_yaml(mine))
    found = fitted_recipe(recipe, quiet(tmp_path, resume=True), "tokenizer_training", 300, 5)
    assert found == mine
    assert timed == []
    other = fitted_recipe(replace(recipe, seed=3), quiet(tmp_path, resume=True), "pretraining", 300, 5)
    assert other == replace(recipe, seed=3), "of a pre-training, the tokenizer's steps are not taken"


def test_settings_of_the_run_hold_and_those_of_steps_are_refused(timed: list[int], tmp_path: Path) -> None:
    """Other settings of a resumed run are those that were fitted: the command that is printed repeats all of them."""
    recipe = named("smoke")
    changes = ["run.timeout=3600", "run.observe_every=1000", "tokenizer_training.batch_size=64"]
    (tmp_path / "recipe.yaml").write_text(mage.recipes.schema.to_yaml(recipe))
    for launch in (quiet(tmp_path, resume=True), quiet(tmp_path / "new")):
        found = fitted_recipe(recipe, launch, "tokenizer_training", 300, 5, changes=changes)
        assert (found.run.timeout, found.run.observe_every) == (3600, 1000)
        assert found.tokenizer_training.batch_size == recipe.tokenizer_training.batch_size
        for change in ("tokenizer_training.steps=9", "tokenizer_training.epochs =9"):
            with pytest.raises(ValueError, match=f"--set {change} cannot be given with them"):
                fitted_recipe(recipe, launch, "tokenizer_training", 300, 5, changes=[change])


class Slow:
    """Forty images, each of which takes a hundredth of a second on a clock of its own."""

    name, labels, class_names, skipped = "slow", None, (), []
    sizes: tuple[int, ...] = (7, 8)

    def __init__(self, now: list[float]) -> None:
        self.now = now

    def __len__(self) -> int:
        return 40

    def load(self, index: int) -> Tensor:
        self.now[0] += 0.01
        return torch.zeros(1, 8, self.sizes[index % len(self.sizes)], dtype=torch.uint8)


@pytest.mark.parametrize(
    ("workers", "online", "sizes", "expected"),
    [
        (0, False, (7, 8), 0.2 + 0.32),
        (2, False, (7, 8), 0.2),  # the processes read 32 images in 0.16 s, while a step is computed
        (1, False, (7, 8), 0.32),
        (0, False, (8,), 0.2),  # of one size: kept in memory
        (0, False, (8, 7) + (8,) * 38, 0.2 + 0.32),  # one of another size, which is not among those that are timed
        (0, True, (7, 8), 0.2 + 0.32 + 0.64),
        (1, True, (7, 8), 0.2 + 0.64),
    ],
)
def test_steps_that_wait_for_images_take_longer(
    monkeypatch: pytest.MonkeyPatch, workers: int, online: bool, sizes: tuple[int, ...], expected: float
) -> None:
    """A step computes for a fifth of a second; an image takes a hundredth to read, and two to encode."""
    now = [0.0]

    def encode(self: mage.Mage, pictures: Tensor) -> Tensor:
        now[0] += 0.02 * len(pictures)
        return torch.zeros(len(pictures), 4, 4, dtype=torch.int64)

    monkeypatch.setattr("mage.runs.reading.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(mage.Mage, "encode", encode)
    recipe, data = named("smoke"), Slow(now)
    data.sizes = sizes
    tokenizer = mage.build(recipe.model, tokenizer=recipe.tokenizer, precision="float32") if online else None
    reading = Reading(data, TransformConfig(size=(8, 8)), workers, tokenizer=tokenizer)
    assert reading.added_to(0.2, 32) == pytest.approx(expected)
    decoded = replace(reading, on_device=True)
    assert decoded.added_to(0.2, 32) == pytest.approx(0.2 + 0.64 * online)


def test_fetching_images_of_shards_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard of a store is copied after some requests; what is timed is decoding."""
    now = [0.0]
    for number in range(8):
        images.save_png(tmp_path / "photos" / f"{number}.png", torch.rand(3, 8, 7 + number % 2))
    runs.shards(tmp_path / "photos", tmp_path / "shards", most_bytes=20_000)
    whole, decode = TarDataset.file_bytes, images.from_bytes

    def slow(self: TarDataset, index: int) -> bytes:
        now[0] += 5.0
        return whole(self, index)

    def decoded(*given: Any, **more: Any) -> Tensor:
        now[0] += 0.01
        return decode(*given, **more)

    monkeypatch.setattr("mage.runs.reading.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(TarDataset, "file_bytes", slow)
    monkeypatch.setattr(images, "from_bytes", decoded)
    reading = Reading(load_dataset(tmp_path / "shards", split="all"), TransformConfig(size=(8, 8)))
    assert reading.added_to(0.2, 32) == pytest.approx(0.2 + 0.32)


def test_fewer_steps_fit_where_images_are_read(
    timed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, launch = named("cifar10"), quiet(tmp_path / "run")
    monkeypatch.setattr(Reading, "added_to", lambda self, step, batch: step + batch * 0.01)
    reading = Reading(Slow([0.0]), recipe.data.tokenizer_transform)
    found = fitted_recipe(recipe, launch, "tokenizer_training", 300, 3, reading=reading)
    assert found.tokenizer_training.steps == int(180 * 0.85 / (0.2 + 0.32))


def test_what_cannot_be_timed_is_refused(timed: list[int], tmp_path: Path) -> None:
    pixels = named("cifar10-mae")
    with pytest.raises(ValueError, match="needs a recipe with a tokenizer"):
        fitted_recipe(replace(pixels, tokenizer=None), quiet(tmp_path), "tokenizer_training", 300, 5)
    recipe = named("smoke")
    model = mage.build(recipe.model, tokenizer=recipe.tokenizer, precision="float32")
    check_words(recipe, model, None)
    with pytest.raises(ValueError, match=r"4 x 4 tokens of 16 codes|these tokens are"):
        check_words(named("mnist5k"), model, None)


def test_a_training_with_minutes_goes_on_with_the_same_steps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    from mage.cli.main import main
    from mage.recipes import fitting

    monkeypatch.setattr(fitting, "FEWEST_STEPS", 6)
    monkeypatch.setattr(fitted, "tokenizer_pace", lambda *_: Pace(6.0, 2))
    monkeypatch.setattr(fitted, "pretraining_pace", lambda *_: Pace(6.0, 2))
    words = ["train-tokenizer", "--recipe", "smoke", "--minutes", "1", "--out", str(tmp_path / "tokenizer")]
    main(words)
    assert "4 x 4 tokens an image" in caplog.text
    assert from_yaml(tmp_path / "tokenizer" / "recipe.yaml").tokenizer_training.steps == 8
    monkeypatch.setattr(fitted, "tokenizer_pace", lambda *_: Pace(1.0, 2))
    main([*words, "--resume"])
    assert "8 steps in" in capsys.readouterr().out
    words = ["pretrain", "--tokenizer", str(tmp_path / "tokenizer"), "--minutes", "2", "--out", str(tmp_path / "run")]
    main(words)
    assert from_yaml(tmp_path / "run" / "recipe.yaml").pretraining.steps == 17
    assert "17 steps in" in capsys.readouterr().out
    monkeypatch.setattr(fitting, "FEWEST_PARAMETERS", 1)
    monkeypatch.setattr(fitting, "PARAMETERS_PER_TOKEN", 0)
    start = ["--init-from", str(tmp_path / "run")]
    main([*words[:5], *start, "--set", "model.depth=3", "--out", str(tmp_path / "deep")])
    assert from_yaml(tmp_path / "deep" / "recipe.yaml").model.depth == 3, "as the user says, for however few images"
    start = ["--init-from", str(tmp_path / "deep"), "--recipe", "smoke"]
    main([*words[:5], *start, "--out", str(tmp_path / "next")])
    assert from_yaml(tmp_path / "next" / "recipe.yaml").model.depth == 3, "a trained model keeps its blocks"


def test_where_time_is_short_smaller_networks_are_timed_until_one_has_enough_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of the whole batch takes two seconds, and each halving takes half as long."""

    def pace(recipe: Recipe, device: object, precision: str) -> Pace:
        return Pace(2.0 * recipe.pretraining.batch_size / 96 * recipe.model.depth / 8, 1)

    monkeypatch.setattr(fitted, "pretraining_pace", pace)
    recipe, launch = named("mnist5k"), quiet(tmp_path / "run")
    with pytest.raises(ValueError, match="too few to learn from"):
        fitted_recipe(recipe, launch, "pretraining", 3600, 1)
    found = fitted_recipe(recipe, launch, "pretraining", 3600, 1, shrink=True)
    assert (found.pretraining.batch_size, found.model.depth) == (24, 2)
    assert found.pretraining.steps == int(60 * 0.85 / 0.125)
    found = fitted_recipe(recipe, launch, "pretraining", 3600, 8, shrink=True)
    assert (found.pretraining.batch_size, found.model.depth, found.pretraining.steps) == (48, 2, 1632)
    assert found.pretraining.base_learning_rate == 4 * recipe.pretraining.base_learning_rate
    assert fitted_recipe(recipe, launch, "pretraining", 3600, 8).model.depth == 8, "without shrink, as the recipe says"
    found = fitted_recipe(recipe, launch, "pretraining", 3600, 40, shrink=True)
    assert (found.pretraining.batch_size, found.model.depth, found.pretraining.steps) == (96, 8, 1020)
