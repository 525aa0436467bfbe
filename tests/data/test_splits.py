"""Images that watch training are held out of it: which they are does not change from run to run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mage import rng, runs
from mage.data.datasets import DATASETS, ArrayDataset
from mage.data.splits import TrainingData, ValidationConfig, carve, held_out
from mage.recipes import named
from mage.settings import override
from tests.reference.launches import quiet


def numbered(count: int) -> ArrayDataset:
    """Image k is k in every pixel, and its label is k."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    return ArrayDataset("numbered", pixels, np.arange(count))


def numbers(data: TrainingData) -> tuple[list[int], list[int]]:
    train, validation = ([int(part.load(index)[0, 0, 0]) for index in range(len(part))] for part in data)
    for part, shown in zip(data, (train, validation), strict=True):
        assert part.labels is not None
        assert part.labels.tolist() == shown, "labels go with their images"
    return train, validation


@pytest.mark.parametrize(("share", "held"), [(0.05, 5), (0.25, 25), (0.001, 1)])
def test_training_never_sees_a_held_out_image_and_nothing_is_lost(share: float, held: int) -> None:
    train, validation = numbers(carve(numbered(100), ValidationConfig(share=share)))
    assert len(validation) == held == held_out(100, ValidationConfig(share=share))
    assert sorted(train + validation) == list(range(100))


def test_the_same_images_are_held_out_in_every_run_and_others_if_asked() -> None:
    first, again = (numbers(carve(numbered(100), ValidationConfig())) for _ in range(2))
    assert first == again
    assert numbers(carve(numbered(100), ValidationConfig(seed=1)))[1] != first[1]
    # a model is measured on what it was held out of: settings of how many are looked at do not move the border
    assert numbers(carve(numbered(100), ValidationConfig(images=3))) == first


def test_a_single_image_is_trained_on_and_looked_at() -> None:
    assert numbers(carve(numbered(1), ValidationConfig())) == ([0], [0])


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.0}, {"images": 0}])
def test_shares_that_leave_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="share must lie between 0 and 1 and images be at least 1"):
        ValidationConfig(**wrong)  # type: ignore[arg-type]


def test_training_opens_no_test_images(tmp_path: Path) -> None:
    opened = []

    def load(split: str, data_root: str | None, channels: int | None) -> ArrayDataset:
        opened.append(split)
        pixels = torch.randint(0, 256, (60, 1, 8, 8), generator=rng.generator(0), dtype=torch.uint8)
        return ArrayDataset("watched", pixels, np.arange(60) % 3, ("a", "b", "c"))

    DATASETS.add("watched", load)
    try:
        recipe = override(named("smoke"), ["data.name=watched", "data.online_images=20"])
        runs.train_tokenizer(recipe, quiet(tmp_path / "tokenizer"))
        tokenizer = runs.load_tokenizer(tmp_path / "tokenizer")
        cache = runs.tokenize(recipe, quiet(tmp_path / "tokens"), tokenizer)
        runs.pretrain(recipe, quiet(tmp_path / "run"), tokenizer, cache=cache)
    finally:
        DATASETS.remove("watched")
    assert set(opened) == {"train"}
    assert len(cache) == 57, "nor are held-out images in the cache"


def test_a_cache_of_other_images_than_those_of_training_now_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = override(named("smoke"), ["data.name=digits"])
    runs.train_tokenizer(recipe, quiet(tmp_path / "tokenizer"))
    tokenizer = runs.load_tokenizer(tmp_path / "tokenizer")
    cache = runs.tokenize(recipe, quiet(tmp_path / "tokens"), tokenizer)
    for number, changes in enumerate(([], ["data.validation.share=0.3"])):
        caplog.clear()
        runs.pretrain(override(recipe, changes), quiet(tmp_path / f"run{number}"), tokenizer, cache=cache)
        assert ("holds tokens of other images" in caplog.text) == bool(changes)
