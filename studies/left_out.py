"""Data sets without one class, and models that are trained on them: used by studies/surprise.py."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import mage
from mage import runs
from mage.data.datasets import DATASETS, ImageDataset, Subset, load_dataset
from mage.recipes import Choice, Recipe, resolve
from mage.runs import Launch
from mage.runs.inputs import data_of_model


@dataclass(frozen=True)
class Subject:
    """A data set, the classes that are left out in turn, and what is changed in its recipe."""

    recipe: str
    data: str
    classes: tuple[int, ...]
    changes: tuple[str, ...]


def of_class(dataset: ImageDataset, number: int) -> ImageDataset:
    """The images of one class."""
    assert dataset.labels is not None
    return Subset(dataset, np.flatnonzero(dataset.labels == number).tolist())


def without_class(dataset: ImageDataset, number: int) -> ImageDataset:
    """The images of the other classes."""
    assert dataset.labels is not None
    return Subset(dataset, np.flatnonzero(dataset.labels != number).tolist())


def register(data: str, number: int) -> str:
    """Make `data` without the class available to recipes, under the name that is returned."""
    name = f"{data}-without-{number}"
    if name not in DATASETS:
        DATASETS.add(
            name,
            lambda split, root, channels: without_class(
                load_dataset(data, split=split, data_root=root, channels=channels), number
            ),
        )
    return name


def train(subject: Subject, number: int, launch: Launch, more: tuple[str, ...] = ()) -> mage.Mage:
    """The model trained without the class; what is finished is not repeated, what was interrupted is resumed.

    launch: its folder is that of this class. more: further changes of the recipe.
    """
    recipe = resolve(Choice(subject.recipe, None, (*subject.changes, *more), register(subject.data, number)))
    finished = launch.out / "finished"
    if not finished.exists():
        _train(recipe, launch)
        finished.touch()
    return mage.load(launch.out / "mage", precision=launch.precision, device=launch.device)


def _train(recipe: Recipe, launch: Launch) -> None:
    runs.train_tokenizer(recipe, launch.inside("tokenizer"))
    tokenizer = runs.load_tokenizer(launch.out / "tokenizer", precision=launch.precision, device=launch.device)
    cache = runs.tokenize(recipe, launch.inside("tokens"), tokenizer)
    runs.pretrain(recipe, launch.inside("mage"), tokenizer, cache=cache)


class Parts:
    """Images for one left-out class: of training, for choices, and for the final measure.

    For choices: validation images that training held out against training images of the left-out class, which training
    did not see either. For the measure: test images.
    """

    def __init__(self, model: mage.Mage, data: str, number: int, data_root: str | None) -> None:
        self.train, self.known = data_of_model(model, register(data, number), data_root)
        self._open = lambda split: load_dataset(data, split=split, data_root=data_root, channels=model.channels)
        self._number = number

    @property
    def new(self) -> ImageDataset:
        """Training images of the left-out class."""
        return of_class(self._open("train"), self._number)

    def test(self) -> tuple[ImageDataset, ImageDataset]:
        """Test images of the other classes and of the left-out class, which choose nothing."""
        dataset = self._open("test")
        return without_class(dataset, self._number), of_class(dataset, self._number)


def folder_of(out: Path, data: str, number: int) -> Path:
    """The folder of everything about one left-out class."""
    return out / data / str(number)
