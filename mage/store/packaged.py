"""Models that come with the package, found by name: `mage.load("digits")`.

Each is a model folder with weights in bfloat16 and a card: what it was trained on and how, what it measures, and the
hash of its weights, so that a record cannot outlive the weights that it describes. Imports no PyTorch, so that names
are there at once.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mage.store.files import CONFIG

FOLDER = Path(__file__).resolve().parent.parent / "packaged"
CARD = "card.json"
MINUTES = FOLDER / "minutes.json"
"""What the demo reaches in how many minutes: a copy of results/first_minute.json."""


@dataclass(frozen=True)
class Card:
    """What is to be known of a model before it is used."""

    title: str
    """In one line: what it makes."""
    data: str
    """Training images: what they are, how many, whose."""
    licence: str
    """Of the weights, and of the data."""
    weights: str
    """SHA-256 of the weights, see `weights_hash`."""
    record: dict[str, Any]
    """As `runs.record` writes them: commit, command, machine, seed, seconds, protocol, metrics."""
    limits: list[str] = field(default_factory=list)
    """What it does badly, and what must not be concluded from it."""
    examples: list[str] = field(default_factory=list)
    """Classes of the images in examples.png, see `example_images`."""


def names() -> tuple[str, ...]:
    """Names of the packaged models."""
    if not FOLDER.is_dir():
        return ()
    return tuple(sorted(path.parent.name for path in FOLDER.glob(f"*/{CARD}")))


def folder_of(name: str) -> Path | None:
    """The folder of the packaged model of this name; None if there is none."""
    return FOLDER / name if name in names() else None


def is_meant(path: str | Path) -> bool:
    """Whether a path is loaded as a packaged model: no model folder, run folder or file has its name."""
    path = Path(path)
    return (
        str(path) in names()
        and not path.is_file()
        and not any((folder / CONFIG).is_file() for folder in (path, path / "model"))
    )


def card_of(name: str) -> Card:
    """The card of a packaged model. Raises ValueError for another name."""
    folder = folder_of(name)
    if folder is None:
        raise ValueError(f"there is no packaged model {name!r}; there are {', '.join(names()) or 'none'}")
    return Card(**json.loads((folder / CARD).read_text()))  # a file of ours


def minutes_record() -> dict[str, Any]:
    """The record of the demo's minutes; empty if there is none."""
    return dict(json.loads(MINUTES.read_text())) if MINUTES.is_file() else {}


def weights_hash(folder: Path) -> str:
    """SHA-256 over the names and the contents of a model folder's weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def weights_bytes(folder: Path) -> int:
    """Bytes of a model folder's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
