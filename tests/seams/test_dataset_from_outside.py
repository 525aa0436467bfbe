"""A stranger's data set by name, from a recipe to a trained tokenizer."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mage import runs
from mage.data.datasets import DATASETS, ArrayDataset, load_dataset
from mage.recipes import named
from mage.settings import override
from tests.reference.launches import quiet


def stripes(split: str, data_root: object, channels: int | None) -> ArrayDataset:
    """Upright and level stripes."""
    count = 60 if split == "train" else 20
    labels = np.arange(count) % 2
    upright = (torch.arange(8) % 2 * 255).to(torch.uint8).expand(8, 8)
    array = torch.stack([upright if label else upright.T for label in labels])[:, None]
    return ArrayDataset("stripes", array, labels, ("level", "upright"), channels)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    DATASETS.add("stripes", stripes)
    yield
    DATASETS.remove("stripes")


def test_a_strangers_data_set_is_opened_by_name_and_trained_on(tmp_path: Path) -> None:
    assert len(load_dataset("stripes", split="test")) == 20
    recipe = override(named("smoke"), ["data.name=stripes"])
    assert runs.train_tokenizer(recipe, quiet(tmp_path / "run")).steps == 12
    with pytest.raises(ValueError, match=r"named data sets are .*stripes"):
        load_dataset("strips")


@pytest.mark.parametrize("name", ["My_Stripes", "my-stripes"])
def test_names_are_looked_up_as_registered(name: str) -> None:
    DATASETS.add(name, stripes)
    try:
        assert len(load_dataset(name)) == 60
    finally:
        DATASETS.remove(name)


def test_the_splits_of_a_strangers_data_set_are_asked_for_as_of_any() -> None:
    with pytest.raises(ValueError, match="split must be train or test"):
        load_dataset("stripes", split="all")


def test_a_loader_that_gives_no_data_set_is_named() -> None:
    DATASETS.add("numbers", lambda split, data_root, channels: [1, 2, 3])  # type: ignore[arg-type,return-value]
    try:
        with pytest.raises(ValueError, match=r"loader of the data set 'numbers' gave a list; .* class_names"):
            load_dataset("numbers")
    finally:
        DATASETS.remove("numbers")
