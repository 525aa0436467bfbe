"""Checkpoints of a run: find, read, write and remove them, and check whether a run may resume from one.

Their content is defined by the engine.
"""

import errno
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from mage import atomic
from mage.settings import differences

FREE = ("data.name",)
"""Settings that may change when a run is resumed; the data's content is in data.fingerprint."""


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest training checkpoint of a run."""
    return max(_checkpoints(folder), default=None, key=_step)


def last_good(folder: Path) -> str:
    """Which checkpoint a run that failed can go on from, for its error."""
    newest = newest_checkpoint(folder)
    return f"the last good checkpoint is {newest}" if newest else "no checkpoint had been written yet"


def _checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, whole ones and those in parts."""
    return [path for path in folder.glob("checkpoints/step-*") if path.suffix in (".pt", ".dcp")]


def _step(path: Path) -> str:
    return path.stem


def write_checkpoint(state: dict[str, Any], folder: Path, step: int) -> None:
    """Write a checkpoint into the run folder, atomically. Raises OSError; a full disk is named as the cause."""
    path = folder / "checkpoints" / f"step-{step:09d}.pt"
    try:
        with atomic.replacing(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        if not full_disk(error):
            raise
        raise OSError(f"the disk is full: {path} was not written; the previous checkpoint is intact") from None


def full_disk(error: BaseException) -> bool:
    """Whether something could not be written because the disk is full."""
    sentence = str(error)
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left" in sentence or "unexpected pos" in sentence


def drop_old_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints."""
    for old in sorted(_checkpoints(folder), key=_step)[:-keep]:
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU. Raises ValueError if it cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the checkpoint {path} cannot be read ({reason}); if it was cut off, move it away to resume from the one "
            "before"
        ) from None
    if not isinstance(state, dict) or not isinstance(state.get("step"), int) or "modules" not in state:
        raise ValueError(f"{path} is not a training checkpoint")
    return state


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings whose change would alter what a resumed run learns, such as "model.width: 192 is not 256".

    Settings that a newer version of the library added do not count, nor do the length of the run and the location of
    the same data.
    """
    lines = [line for name in now if name in before for line in differences(before[name], now[name], name, added=False)]
    names = [line.partition(":")[0] for line in lines]
    return [
        line
        for name, line in zip(names, lines, strict=True)
        if name not in FREE and name.rpartition(".")[2] not in ("steps", "epochs")
    ]
