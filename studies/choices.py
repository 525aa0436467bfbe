"""Studies choose settings by validation images, which training held out; test images measure the chosen ones only.

A study with several settings measures all of them on validation images; `Parts.test` is read for the final measurement
of the chosen ones.
"""

import argparse
import functools
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mage
from mage import atomic
from mage.data.datasets import ImageDataset, load_dataset
from mage.runs.inputs import data_of_model
from mage.sampling.settings import SamplingConfig

RESULTS = Path(__file__).resolve().parent.parent / "results"
"""Folder of the records; trials with small sizes use another one, so that they do not replace these."""


def ask(out: Path, request: Mapping[str, object]) -> None:
    """Keep what a study was asked for beside what it makes, which a further call takes over as it is.

    request: all that the results depend on; what no call has stated before is added to it. Raises SystemExit if OUT
    holds results of another request, which the record of this one would describe wrongly.
    """
    path, asked = out / "request.json", {name: str(value) for name, value in request.items()}
    before = json.loads(path.read_text()) if path.exists() else {}
    other = [
        f"{name} {before[name]!r}, not {value!r}" for name, value in asked.items() if before.get(name, value) != value
    ]
    if other:
        raise SystemExit(f"{out} holds what was made with {'; '.join(other)}: choose another --out, or delete it")
    if not asked.items() <= before.items():
        atomic.write_json(path, before | asked)


def place(given: str | Path | None) -> str:
    """A model or data set as a request names it: a file or folder by its full path, others by their name."""
    return str(Path(given).resolve()) if given and Path(given).exists() else str(given or "")


def stated(parser: argparse.ArgumentParser, options: argparse.Namespace, *names: str) -> str:
    """Those of the options that are not the default ones, as the end of a command; folders by their name."""
    words = list[str]()
    for name in names:
        value = getattr(options, name)
        if value != parser.get_default(name):
            values = value if isinstance(value, list | tuple) else [] if value is True else [value]
            shown = [Path(one).resolve().name if Path(str(one)).is_dir() else one for one in values]
            words += [f"--{name.replace('_', '-')}", *map(str, shown)]
    return "".join(f" {shlex.quote(word)}" for word in words)


def published(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a sampler: those that are not stated are the published ones, not what the model was tuned to."""
    settings = asdict(SamplingConfig()) | dict(sampling)
    if settings["token_temperature_end"] is None:  # none would leave the model's own
        settings["token_temperature_end"] = settings["token_temperature"]
    return settings


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
