"""What studies choose by: validation images, which training held out. Test images measure what was chosen, and no more.

A study that tries settings measures all of them on validation images; `Parts.test` is read when the final measure of
the chosen ones asks for it.
"""

import functools
from pathlib import Path

import mage
from mage.data.datasets import ImageDataset, load_dataset
from mage.runs.inputs import data_of_model

RESULTS = Path(__file__).resolve().parent.parent / "results"
"""Where records go; trials with small sizes give another folder, so that they leave the measured ones alone."""


class Parts:
    """A data set in three parts, as the training of `model` saw it."""

    def __init__(self, model: mage.Mage, name: str, data_root: str | None) -> None:
        self._name, self._data_root, self._channels = name, data_root, model.channels
        self.train, self.validation = data_of_model(model, name, data_root)

    @functools.cached_property
    def test(self) -> ImageDataset:
        """Read when first asked for, which no choice does."""
        return load_dataset(self._name, split="test", data_root=self._data_root, channels=self._channels)

    def sentence(self, chosen: str) -> str:
        """For `protocol.validation` of a record. chosen: what was chosen, and by what."""
        return (
            f"{chosen} by {len(self.validation):,} validation images, which training held out of the training images; "
            f"what was chosen was measured on {len(self.test):,} test images, which chose nothing."
        )


NO_CHOICE = "Nothing is chosen: every row is reported as measured. Training was watched on images that it held out."
"""For `protocol.validation` of a study that compares and does not choose."""
