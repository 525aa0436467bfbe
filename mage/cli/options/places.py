"""Types for what is read and written, checked before PyTorch is imported, which takes seconds.

What a file holds is checked by the library, which knows more.
"""

import os
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mage.cli.options.choices import DATASETS
from mage.data import names
from mage.data.image_folders import image_files
from mage.data.shard_names import are_shards
from mage.store.files import CLASSIFIER
from mage.store.find import located


@dataclass(frozen=True)
class Place:
    """What a path must be."""

    check: Callable[[str, Any], None]
    """(option, path); raises ValueError in a sentence"""


def _model(option: str, path: str | Path) -> None:
    located(path)


def _classifier(option: str, path: Path) -> None:
    if not (path / CLASSIFIER).is_file():
        located(path)


def _images(option: str, name: str | Path) -> None:
    if not names.registered(name, _known()) and not are_shards(name):
        names.check_folder(name, _known())


def _known() -> tuple[str, ...]:
    return (*DATASETS, *(other for other in names.DATASETS.names() if other not in DATASETS))


def _file(*suffixes: str) -> Place:
    def check(option: str, path: Path) -> None:
        check_new_file(option, path, suffixes)

    return Place(check)


def _folder(option: str, path: Path) -> None:
    if path.is_file():
        raise ValueError(f"{path} is a file; {option} takes a folder")
    _free(option, path)


def _free(option: str, path: Path) -> None:
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise ValueError(f"cannot write {path}: {parent} is a file, not a folder")
    nearest = next((folder for folder in (path, *path.parents) if folder.is_dir()), None)
    if nearest is not None and not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write {path}: the folder {nearest} cannot be written")


MODEL = Place(_model)
Model = Annotated[Path, MODEL]
"""A model folder, a run folder, a packaged model, or a model on the Hub."""
Classifier = Annotated[Path, Place(_classifier)]
"""The same, or a folder of `mage probe --out`."""
IMAGES = Place(_images)
Images = Annotated[str, IMAGES]
"""A data set by name, a folder of images, or tar shards."""
ImageFolder = Annotated[Path, Place(_images)]
"""The same, as a path."""
NewFolder = Annotated[Path, Place(_folder)]
"""A folder to write."""
New = Annotated[Path, Place(_free)]
"""A file or folder to write."""
NewPicture = Annotated[Path, _file(".png")]
NewPage = Annotated[Path, _file(".html")]
NewJson = Annotated[Path, _file(".json")]
NewTable = Annotated[Path, _file(".csv", ".parquet", ".npz")]


def check_new_file(option: str, path: Path, suffixes: tuple[str, ...]) -> None:
    """Raise ValueError if a file of these kinds could not be written to `path`."""
    if path.suffix.lower() not in suffixes:
        *others, last = suffixes
        raise ValueError(f"{option} {path} must end in {', '.join(others)}{' or ' if others else ''}{last}")
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; give the name of a file")
    _free(option, path)


def check_places(options: Any) -> None:
    """Raise ValueError about the first option of a dataclass that names nothing to read, or nothing to write to."""
    for name, hint in typing.get_type_hints(type(options), include_extras=True).items():
        place, value = _place(hint), getattr(options, name)
        if place is None or value is None:
            continue
        for path in value if isinstance(value, tuple) else (value,):
            place.check(f"--{name.rstrip('_').replace('_', '-')}", path)
            if place is IMAGES and getattr(options, "data_root", None) is None:  # else the data set is meant
                _check_one(path)


def _check_one(name: str | Path) -> None:
    """Raise ValueError if a name is that of a data set, and that of a folder of images."""
    if names.registered(name, _known()) and Path(name).is_dir() and image_files(Path(name)):
        raise ValueError(
            f"{name} is a data set, and a folder of images here: write {name}/ for the folder, or start the command in "
            "another folder for the data set"
        )


def _place(hint: Any) -> Place | None:
    """The place in a type such as `Model`, `Model | None` or `tuple[Images, ...]`."""
    places = [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Place)]
    if places:
        return places[0]
    return next((inner for part in typing.get_args(hint) if (inner := _place(part)) is not None), None)
