"""Studies choose settings by validation images, which training held out; test images measure the chosen ones only.

A study with several settings measures all of them on validation images; `Parts.test` is read for the final measurement
of the chosen ones.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import mage
from mage import atomic
from mage.data.datasets import ImageDataset, load_dataset
from mage.runs.inputs import data_of_model

RESULTS = Path(__file__).resolve().parent.parent / "results"
"""Folder of the records; trials with small sizes use another one, so that they do not replace these."""


def ask(out: Path, request: Mapping[str, object]) -> None:
    """Keep what a study was asked for beside its trainings, which a further call takes over as they are.

    Raises SystemExit if OUT holds trainings of another request, which the record of this one would describe wrongly.
    """
    path, asked = out / "request.json", {name: str(value) for name, value in request.items()}
    if not path.exists():
        atomic.write_json(path, asked)
        return
    before = json.loads(path.read_text())
    other = [
        f"{name} {before.get(name)!r}, not {value!r}" for name, value in asked.items() if before.get(name) != value
    ]
    if other:
        raise SystemExit(f"{out} holds what was made with {'; '.join(other)}: choose another --out, or delete it")


class Parts:
    """A data set in three parts, split as in the training of `model`."""

    def __init__(self, model: mage.Mage, name: str, data_root: str | None) -> None:
        self._name, self._data_root, self._channels = name, data_root, model.channels
        self.train, self.validation = data_of_model(model, name, data_root)

    @functools.cached_property
    def test(self) -> ImageDataset:
        """Test images, read on first access; choices do not use them."""
        return load_dataset(self._name, split="test", data_root=self._data_root, channels=self._channels)

    def sentence(self, chosen: str) -> str:
        """A sentence for `protocol.validation` of a record. chosen: its beginning, with the chosen settings."""
        return (
            f"{chosen} by {len(self.validation):,} validation images, which training held out of the training images; "
            f"what was chosen was measured on {len(self.test):,} test images, which chose nothing."
        )


NO_CHOICE = "Nothing is chosen: every row is reported as measured. Training was watched on images that it held out."
"""For `protocol.validation` of a study that trains, compares and does not choose."""
