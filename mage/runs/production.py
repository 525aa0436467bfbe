"""Generation of many images: in several processes, resumable, with a result that does not depend on their number.

Images are numbered and generated in fixed batches of consecutive numbers. Batches form units, which are written
atomically: a batch of PNG files, a tar shard, or a file of features for the metrics. Process i of n generates every
n-th unit and leaves out existing ones. Processes do not communicate, so they may run on one machine, on several, or one
after the other.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from mage import atomic, checksums, locks
from mage.evaluation.extractors import Extractor
from mage.images import Rounding
from mage.pipeline import Mage
from mage.runs.sinks import Sink
from mage.tokenizers.base import weights_fingerprint

Form = Literal["png", "tar", "features"]
SETTINGS = "settings.json"
PATIENCE = 60.0
"""Seconds to wait for another process that is writing the settings."""


@dataclass(frozen=True)
class Production:
    """Settings of a generation job; image k depends only on its number and these settings."""

    num: int
    """Number of images."""
    seed: int = 0
    batch_size: int = 64
    """Images at a time."""
    classes: tuple[int | str, ...] = ()
    """Image k has class k modulo their number; empty: the model's default."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Settings of SamplingConfig that differ from the model's own."""

    def __post_init__(self) -> None:
        if self.num < 1 or self.batch_size < 1:
            raise ValueError(
                f"the number of images and the batch size must be at least 1, not {self.num} and {self.batch_size}"
            )

    def classes_of(self, numbers: range) -> list[int | str] | None:
        """The classes of the images `numbers`; None: the model's default."""
        return [self.classes[k % len(self.classes)] for k in numbers] if self.classes else None

    def make(self, model: Mage, numbers: range) -> Float[Tensor, "n c H W"]:
        """One batch of images in [0, 1]."""
        return model.generate(
            len(numbers),
            first_index=numbers.start,
            seed=self.seed,
            batch_size=self.batch_size,
            classes=self.classes_of(numbers),
            **self.sampling,
        )

    def class_of(self, number: int) -> int | str | None:
        """The class of image `number` as it was given, or None."""
        return self.classes[number % len(self.classes)] if self.classes else None


def units(num: int, size: int, part: tuple[int, int] = (0, 1)) -> Iterator[range]:
    """The units of process `part[0]` of `part[1]`, as ranges of image numbers."""
    for first in range(part[0] * size, num, part[1] * size):
        yield range(first, min(first + size, num))


def check_job(production: Production, sink: Sink, part: tuple[int, int]) -> None:
    """Raise ValueError for an invalid part, or units that do not consist of whole batches."""
    if not 0 <= part[0] < part[1]:
        raise ValueError(f"there is no part {part[0]} of {part[1]}; parts count from 0")
    if sink.unit % production.batch_size:
        raise ValueError(f"a shard of {sink.unit} images is not a multiple of the batch size {production.batch_size}")


def produce(model: Mage, production: Production, sink: Sink, part: tuple[int, int] = (0, 1)) -> Iterator[int]:
    """Generate this process's missing units; yields the number of images of every finished or existing unit."""
    check_job(production, sink, part)
    try:
        for numbers in units(production.num, sink.unit, part):
            if not sink.has(numbers):
                sink.write(numbers, _batches(model, production, numbers))
            yield len(numbers)
    finally:
        sink.close()


def _batches(model: Mage, production: Production, numbers: range) -> Iterator[Tensor]:
    for first in range(numbers.start, numbers.stop, production.batch_size):
        yield production.make(model, range(first, min(first + production.batch_size, numbers.stop))).cpu()


def claim(
    folder: Path,
    model: Mage,
    production: Production,
    form: Form,
    unit: int,
    *,
    extractor: Extractor | None = None,
    rounding: Rounding = "nearest",
) -> None:
    """Write the settings into the folder. Raises ValueError if it holds images of other settings or other files.

    extractor: of the features, for the form "features". rounding: conversion of images to 8 bits.
    """
    mine = {
        "form": form,
        "model": weights_fingerprint(model.require_transformer().state_dict()),
        "tokenizer": model.require_tokenizer().fingerprint(),
        "precision": model.precision,
        "image_shape": [model.channels, *model.image_size],
        "seed": production.seed,
        "batch_size": production.batch_size,
        "unit": unit,
        "extractor": None if extractor is None else extractor.fingerprint,
        "rounding": rounding,
        "classes": list(production.classes),
        "class_shares": model.notes.get("class_shares"),
        # the model's own settings, too: they change when its sampler is tuned
        "sampling": asdict(model.check_generation(production.classes or None, **production.sampling)),
    }
    with locks.held(folder / ".settings.lock", folder, wait=PATIENCE):  # parts may start at the same time
        _claim(folder, mine)


def part_lock(folder: Path, part: tuple[int, int]) -> contextlib.AbstractContextManager[None]:
    """The lock of a part of a job: other parts may be generated into the folder by other processes."""
    return locks.held(folder / f".part-{part[0]}-of-{part[1]}.lock", folder)


def _claim(folder: Path, mine: dict[str, Any]) -> None:
    path = folder / SETTINGS
    if path.is_file():
        try:
            # the only rounding of older versions
            stored = {"rounding": "nearest"} | checksums.unsealed(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            raise ValueError(
                f"{path} is damaged: choose another folder, or discard the images first (mage generate --overwrite)"
            ) from None
        changed = [name for name, value in json.loads(json.dumps(mine)).items() if stored.get(name) != value]
        if changed:
            raise ValueError(
                f"{folder} holds images with another {changed[0]}: {stored.get(changed[0])}, not {mine[changed[0]]}; "
                "choose another folder, or discard them first (mage generate --overwrite)"
            )
    elif foreign := next(_produced_files(folder), None):
        raise ValueError(f"{folder} holds {foreign.name}, which this command did not write: choose another folder")
    else:
        atomic.write_json(path, checksums.sealed(mine))


def image_shape_in(folder: Path) -> tuple[int, int, int] | None:
    """Channels, height and width of the images in a folder of `produce`, if stored in its settings."""
    try:
        channels, height, width = json.loads((folder / SETTINGS).read_text())["image_shape"]
    except (OSError, ValueError, KeyError):
        return None
    return int(channels), int(height), int(width)


def precision_in(folder: Path) -> str | None:
    """The precision by which the images in a folder of `produce` were made, if stored in its settings."""
    try:
        return str(json.loads((folder / SETTINGS).read_text())["precision"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def rounding_in(folder: Path) -> Rounding | None:
    """Conversion to 8 bits of the images in a folder of `produce`, if stored in its settings."""
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text())
        rounding = settings.get("rounding", "nearest")
    except (OSError, ValueError, AttributeError):
        return None
    return "truncate" if rounding == "truncate" else "nearest"


def discard(folder: Path) -> None:
    """Remove only the files that `produce` wrote into a folder; nothing in a folder without its settings.

    Raises ValueError while another process generates into it.
    """
    for path in folder.glob(".part-*.lock"):
        with locks.held(path, folder):
            pass
    if not (folder / SETTINGS).is_file():
        return
    for path in (*_produced_files(folder), folder / "grid.png", folder / SETTINGS):
        path.unlink(missing_ok=True)


def _produced_files(folder: Path) -> Iterator[Path]:
    """Files with names that `produce` gives."""
    form = re.compile(r"\d{6,}\.(png|tar)|features-\d{6,}\.npz")
    return (path for path in sorted(folder.glob("*")) if form.fullmatch(path.name))
