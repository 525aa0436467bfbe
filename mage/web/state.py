"""The models of a page, with pictures to try them on, and the folder for pictures that visitors choose.

Letters: c channels, h w pixels.
"""

import hashlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

import mage
from mage import images
from mage.data.datasets import CorruptImage, spread
from mage.data.named_images import named_images
from mage.nn.grids import rows_and_columns
from mage.pipeline import Mage
from mage.runs.explore import thumbnail
from mage.store import packaged
from mage.store.example_images import read_examples
from mage.store.packaged import Card
from mage.web.guard import KEPT_SECONDS
from mage.web.limits import LIMITS, Limits, read_picture

SHOWN = 16
"""Pictures to choose from."""
KEPT = 500
"""Largest number of pictures in the folder; the oldest are deleted first."""


@dataclass(frozen=True)
class Served:
    """One model of the page."""

    name: str
    model: Mage
    source: str
    """Packaged name or folder, as given."""
    card: Card | None
    folder: Path | None
    """Real images to map and to find neighbours in."""
    examples: tuple[UInt8[Tensor, "c h w"], ...]
    """Pictures to begin with, at the model's size."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that it can be asked for; numbers if they have no names."""
        count = self.model.require_generator().config.num_classes
        return self.model.class_names if len(self.model.class_names) == count else tuple(map(str, range(count)))


class Models:
    """The models of a page by name, and what visitors bring."""

    def __init__(
        self,
        sources: Sequence[str] = (),
        *,
        folder: Path | None = None,
        device: str | torch.device = "auto",
        precision: str = "auto",
        limits: Limits = LIMITS,
    ) -> None:
        """Load them; without sources, all packaged models. Raises ValueError for a model that cannot generate images.

        folder: of images, for the map and for neighbours; without it, a packaged model's examples.
        """
        self.limits = limits
        self._work = tempfile.TemporaryDirectory(prefix="mage-serve-")
        self.chosen, self.uploads = Path(self._work.name) / "chosen", Path(self._work.name) / "uploads"
        self.chosen.mkdir()
        self._writing = threading.Lock()  # visitors' events run in threads
        self._kept: dict[Path, float] = {}  # when they were last asked for: the clock of files may jump
        sources = tuple(sources) or packaged.names()
        last = [Path(os.path.abspath(source)).name for source in sources]
        names = [name if last.count(name) == 1 else source for name, source in zip(last, sources, strict=True)]
        try:
            self._served = {
                name: self._load(name, source, folder, mage.load(source, device=device, precision=precision))
                for name, source in zip(names, sources, strict=True)
            }
        except BaseException:
            self.close()
            raise

    def warm(self) -> None:
        """Make the first model's first image, which takes longer than every later one."""
        self[self.names[0]].model.generate(1, steps=1)

    @property
    def names(self) -> list[str]:
        """Names, the first is shown first."""
        return list(self._served)

    def __getitem__(self, name: str) -> Served:
        """The model of this name. Raises ValueError, which says what there is, for another."""
        if name not in self._served:
            raise ValueError(f"there is no model {name!r} here; there are {', '.join(self._served)}")
        return self._served[name]

    def close(self) -> None:
        """Delete what visitors uploaded and chose."""
        self._work.cleanup()

    def take(self, name: str, path: str | Path | None) -> Tensor:
        """A visitor's picture at the model's size, float (c, h, w) in [0, 1]. Raises ValueError."""
        model = self[name].model
        picture = read_picture(path, model.channels, self.limits)
        return images.to_float(images.fit(picture, model.image_size))

    def keep(self, picture: UInt8[Tensor, "c h w"]) -> str:
        """Write a picture at the model's size where the page finds it again; the path."""
        return self._file(images.png_bytes(images.to_float(picture)))

    def as_files(self, value: Any) -> Any:
        """A result of the page with its pictures, in tuples, lists and mappings too, as paths of PNG files.

        Gradio would write an equal picture anew, over a file that a browser may be reading.
        """
        if isinstance(value, Image.Image):
            data = io.BytesIO()
            value.save(data, "PNG")
            return self._file(data.getvalue())
        if isinstance(value, tuple | list):
            return tuple(map(self.as_files, value)) if isinstance(value, tuple) else list(map(self.as_files, value))
        return {name: self.as_files(part) for name, part in value.items()} if isinstance(value, dict) else value

    def _file(self, data: bytes) -> str:
        """The file of a picture, named by its content and never written twice; what is old is deleted."""
        path = self.chosen / f"{hashlib.sha256(data).hexdigest()[:16]}.png"
        with self._writing:
            if not path.exists():
                with tempfile.NamedTemporaryFile(dir=self._work.name, delete=False) as fresh:
                    fresh.write(data)
                Path(fresh.name).replace(path)
            self._kept.pop(path, None)
            self._kept[path] = now = time.monotonic()
            for oldest, asked in list(self._kept.items()):
                if len(self._kept) <= KEPT and now - asked <= KEPT_SECONDS:
                    break
                oldest.unlink(missing_ok=True)
                del self._kept[oldest]
        return str(path)

    def _load(self, name: str, source: str, folder: Path | None, model: Mage) -> Served:
        try:
            rows_and_columns(model.require_generator().grid, "the page")
            model.require_tokenizer()
        except ValueError as error:
            raise ValueError(f"{source} cannot be shown: {error}") from None
        if model.channels not in images.PIL_MODES:
            raise ValueError(f"{source} cannot be shown: a browser shows 1 or 3 channels, not {model.channels}")
        card = packaged.card_of(source) if packaged.is_meant(source) else None
        if folder is None and card is not None and card.examples:
            folder = self._write_examples(source)
        return Served(name, model, source, card, folder, _examples(folder, model))

    def _write_examples(self, name: str) -> Path:
        """A packaged model's examples as a folder with one folder per class."""
        root = Path(self._work.name) / "examples" / name
        for number, (picture, label) in enumerate(zip(*read_examples(name), strict=True)):
            images.save_png(root / label / f"{number:02}.png", images.to_float(picture))
        return root


def _examples(folder: Path | None, model: Mage) -> tuple[Tensor, ...]:
    """Pictures of a folder, spread over it, at the model's size; without those that cannot be read."""
    if folder is None:
        return ()
    source = named_images(folder, split="all", channels=model.channels)
    pictures = []
    for index in spread(len(source), SHOWN):
        with suppress(CorruptImage):
            pictures.append(images.fit(source.load(index), model.image_size))
    return tuple(pictures)


def thumbnails(served: Served) -> list[tuple[Image.Image, str]]:
    """The examples with captions for people who do not see them."""
    return [(thumbnail(picture), f"example {number}") for number, picture in enumerate(served.examples, 1)]
