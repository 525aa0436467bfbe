"""What a recipe will cost: the images that training sees, and the time of a step, by real steps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mage import images
from mage.recipes import Choice, named, resolve
from mage.runs import pace
from mage.runs.budget import budget, count_images
from mage.runs.inputs import training_data

CPU = torch.device("cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty small images in two classes; a tenth of them is the test split."""
    for number in range(40):
        images.save_png(tmp_path / "ab"[number % 2] / f"{number}.png", torch.full((3, 9, 12), number / 40))
    return tmp_path


def test_a_folder_is_counted_as_training_will_see_it(photos: Path) -> None:
    recipe = resolve(Choice("cifar10", data=str(photos)))
    extent, data = count_images(recipe), training_data(recipe, None)
    assert (extent.train, extent.held_out, extent.classes) == (len(data.train), len(data.validation), 2)
    assert extent.train + extent.held_out == 36
    assert "35 images in 2 classes to train on, 1 held out for validation" in extent.sentence(recipe)


def test_public_data_sets_are_planned_without_a_download() -> None:
    extent = count_images(named("imagenet-base"))
    share = named("imagenet-base").data.validation.share
    assert extent.train + extent.held_out == 1_281_167
    assert extent.held_out == round(share * 1_281_167)
    assert "imagenet" in extent.source
    assert count_images(named("cifar10")).train == 48_000


def test_a_folder_called_as_a_public_data_set_is_counted(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training opens the folder; only CIFAR's and MNIST's names are data sets of the library."""
    photos.rename(photos.with_name("imagenet"))
    monkeypatch.chdir(photos.parent)
    extent = count_images(resolve(Choice("cifar10", data="imagenet")))
    assert (extent.train + extent.held_out, extent.source) == (36, "counted in imagenet")


def test_a_recipe_whose_data_is_not_there_asks_how_many_images_there_are() -> None:
    with pytest.raises(ValueError, match=r"no data set.*'photos'.*--images 1000"):
        count_images(named("photos64"))
    assert count_images(named("photos64"), images=1000).train == 950


def test_steps_of_a_method_that_sees_pixels_are_counted_too() -> None:
    recipe = named("cifar10-mae")
    assert budget(recipe, 1000) == {"steps": recipe.pretraining.num_steps(1000)}


def test_a_step_on_pairs_of_views_takes_twice_as_much() -> None:
    pairs, single = (budget(named(name), 1000) for name in ("cifar10-mage-c", "cifar10-crops"))
    assert pairs["flops_per_image"] == 2 * single["flops_per_image"]


@pytest.mark.parametrize(
    "choice",
    [
        Choice("smoke"),
        Choice("smoke", changes=("method.conditions.source=labels",)),
        Choice("cifar10-mae", changes=("model.width=16", "model.heads=2", "model.depth=1", "pretraining.batch_size=4")),
    ],
)
def test_steps_are_timed_for_every_kind_of_batch(choice: Choice) -> None:
    recipe = resolve(choice)
    measured = pace.pretraining_pace(recipe, CPU, "float32")
    assert 0 < measured.seconds < 60
    assert measured.measured_images == recipe.pretraining.batch_size


def test_timing_draws_no_random_numbers_of_the_caller() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    pace.tokenizer_pace(named("smoke"), CPU, "float32")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_fixed_cost_of_a_step_is_not_multiplied_by_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def slow(task: object, device: object, precision: str) -> float:
        sizes.append(task.batch_size)  # type: ignore[attr-defined]
        return 3.0 + 0.1 * sizes[-1]

    monkeypatch.setattr(pace, "_step_seconds", slow)
    recipe = resolve(Choice("smoke", changes=("pretraining.batch_size=256",)))
    assert pace.pretraining_pace(recipe, CPU, "float32").seconds == pytest.approx(3 + 25.6)
    assert sizes == [2, 4]
    sizes.clear()
    monkeypatch.setattr(pace, "_step_seconds", lambda *_: sizes.append(1) or 50.0)  # type: ignore[func-returns-value]
    assert pace.pretraining_pace(recipe, CPU, "float32").seconds == pytest.approx(50 * 128)
    assert len(sizes) == 1, "of very long steps one is enough"


def test_the_first_step_which_warms_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, steps = [0.0], iter([9.0, 1.0, 5.0, 5.0])

    def step(self: object) -> None:
        clock[0] += next(steps)

    monkeypatch.setattr(pace.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(pace.Trainer, "train_step", step)
    monkeypatch.setattr(pace, "FEWEST", 16)
    assert pace.pretraining_pace(named("smoke"), CPU, "float32").seconds == 1.0


def test_a_long_step_is_measured_with_few_images_and_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def slow(task: object, device: object, precision: str) -> float:
        sizes.append(task.batch_size)  # type: ignore[attr-defined]
        return 0.1 * sizes[-1]

    monkeypatch.setattr(pace, "_step_seconds", slow)
    recipe = resolve(Choice("smoke", changes=("pretraining.batch_size=256",)))
    assert pace.pretraining_pace(recipe, CPU, "float32") == pace.Pace(25.6, 32)
    assert sizes == [2, 8, 32]


def full_above(most: int) -> Any:
    """Times of steps on a device that has memory for so many images."""

    def seconds(task: Any, device: torch.device, precision: str) -> float:
        if task.batch_size > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return 0.01 * task.batch_size

    return seconds


def test_more_images_than_the_device_has_memory_for_are_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = resolve(Choice("smoke", changes=("pretraining.batch_size=256",)))
    monkeypatch.setattr(pace, "_step_seconds", full_above(20))
    measured = pace.pretraining_pace(recipe, CPU, "float32")
    assert (measured.measured_images, round(measured.seconds, 6)) == (8, 2.56)
    monkeypatch.setattr(pace, "_step_seconds", full_above(1))
    with pytest.raises(torch.OutOfMemoryError):
        pace.pretraining_pace(recipe, CPU, "float32")


def test_of_a_batch_in_parts_one_part_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ("pretraining.batch_size=256", "pretraining.accumulation=16")
    monkeypatch.setattr(pace, "_step_seconds", full_above(16))
    measured = pace.pretraining_pace(resolve(Choice("smoke", changes=changes)), CPU, "float32")
    assert (measured.measured_images, round(measured.seconds, 6)) == (16, 2.56)
