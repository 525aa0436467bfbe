"""A model -> a folder with one file per part and `manifest.json`, checked and written in one step."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from mage import atomic
from mage.export.check import can_run, check
from mage.export.manifest import FILE, FORMAT, describe
from mage.export.parts import PartName, parts_of
from mage.export.programs import SUFFIXES, check_installed, traced, write_onnx, write_torch
from mage.models.pooling import Pool
from mage.pipeline import Mage

FILES = (FILE, *(name + end for name in get_args(PartName) for end in (*SUFFIXES.values(), f"{SUFFIXES['onnx']}.data")))
"""What an export may have written, in any form; other files of the folder stay."""


def export(
    model: Mage,
    folder: str | Path,
    form: str = "onnx",
    *,
    parts: Sequence[str] = (),
    pool: Pool = "mean",
    checked: bool = True,
    on_part: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write what the model does as files, in float32 and for any number of images; gives the manifest.

    form: "onnx" (extra `export`), or "torch" for programs of `torch.export` (.pt2).
    parts: of encode, decode, features, logits and classes; default: all that the model has. pool: of the features.
    checked: run every file, if onnxruntime is installed, and compare it with the model before anything is kept.
    on_part: called with the name of each part before it is written.
    An older export at the same path is replaced; other files beside it stay. Raises ValueError for anything else there,
    for parts that the model does not have, and for files that compute something else than the model.
    """
    check_installed(form)
    folder = Path(folder)
    check_free(folder)
    chosen = parts_of(model, parts, pool)
    differences: dict[str, float] | None = {} if checked and can_run(form) else None
    with atomic.replacing_folder(folder, replaces=FILES) as temporary:
        for part in chosen:
            if on_part is not None:
                on_part(part.name)
            path, program = temporary / (part.name + SUFFIXES[form]), traced(part)
            if form == "onnx":
                write_onnx(program, part, path)
            else:
                write_torch(program, path)
            if differences is not None:
                differences[part.name] = check(part, form, path)
        manifest = describe(model, chosen, form, differences)
        atomic.write_json(temporary / FILE, manifest)
    return manifest


def check_free(folder: Path) -> None:
    """Raise ValueError if there is something at `folder` that an export may not replace."""
    if not atomic.is_empty(folder) and not _is_manifest(folder / FILE):
        raise ValueError(f"{folder} exists and holds no export; choose another name, nothing was overwritten")
    atomic.check_replaceable(folder)


def _is_manifest(path: Path) -> bool:
    """Whether an export wrote this file: web pages have one of the same name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT
