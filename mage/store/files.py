"""The files of a model folder: their names, and the hashes of the weights that config.json holds."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG, TOKENIZER, TRANSFORMER = "config.json", "tokenizer.safetensors", "transformer.safetensors"
EXTRA = "released_extra.safetensors"
CLASSIFIER = "classifier.json"
"""Marks a folder of `mage probe --out`: a classifier on the features of a model."""
WEIGHTS = (TOKENIZER, TRANSFORMER, EXTRA)
HASHES = "sha256"
"""Entry of config.json: file name -> SHA-256 of its contents."""


def file_hash(path: Path) -> str:
    """SHA-256 of a file's contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights in a model folder."""
    return {name: file_hash(folder / name) for name in WEIGHTS if (folder / name).is_file()}


def check_written(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError if a file of weights is not the one that its config.json was written with.

    Folders of older versions name no hashes, and are taken as they are.
    """
    named = config.get(HASHES)
    for name, wanted in named.items() if isinstance(named, dict) else ():
        if name in WEIGHTS and (folder / name).is_file() and file_hash(folder / name) != wanted:
            raise ValueError(
                f"{folder / name} is damaged: its SHA-256 is not the one that {CONFIG} names. Take it from a copy, or "
                f"resume the run that wrote it; if you changed it yourself, remove {HASHES!r} from {CONFIG}"
            )


def check_hashes(folder: Path, source: str) -> None:
    """Raise ValueError unless the weights in `folder` are those that its config.json was written with.

    source: where the files come from, for the error.
    """
    try:
        expected = json.loads((folder / CONFIG).read_text(encoding="utf-8"))[HASHES]
        named = {str(name): str(digest) for name, digest in expected.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{source} is not a model of this library: its {CONFIG} names no hashes of weights; `mage push` and "
            "`push_to_hub` upload models that can be checked"
        ) from None
    for name in sorted(named.keys() | {name for name in WEIGHTS if (folder / name).is_file()}):
        if name not in WEIGHTS or not (folder / name).is_file():
            raise ValueError(f"{source} is incomplete: its {CONFIG} names {name}, which is not there")
        found, wanted = file_hash(folder / name), named.get(name)
        if found != wanted:
            raise ValueError(
                f"{name} of {source} is not the file that was uploaded: its SHA-256 is {found[:12]}..., {CONFIG} "
                f"names {wanted[:12] + '...' if wanted else 'none'}; delete {folder.parent.parent} and load it again, "
                "and ask its owner if that does not help"
            )
