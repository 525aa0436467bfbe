"""Checkpoints of a run: finding the newest, reading one, dropping old ones. The engine says what is in them."""

import errno
import pickle
from pathlib import Path
from typing import Any

import torch

from mage import atomic


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest training checkpoint of a run."""
    return max(folder.glob("checkpoints/step-*.pt"), default=None)


def write_checkpoint(state: dict[str, Any], folder: Path, step: int) -> None:
    """Write a checkpoint into the run folder, whole or not at all. Raises OSError, naming a full disk as such."""
    path = folder / "checkpoints" / f"step-{step:09d}.pt"
    try:
        with atomic.replacing(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        full = (
            getattr(error, "errno", None) == errno.ENOSPC
            or "No space left" in str(error)
            or "unexpected pos" in str(error)
        )
        if not full:
            raise
        raise OSError(f"the disk is full: {path} was not written, the checkpoint before it is whole") from None


def drop_old_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest."""
    for old in sorted(folder.glob("checkpoints/step-*.pt"))[:-keep]:
        old.unlink()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU whatever it was written on. Raises ValueError for what cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the checkpoint {path} cannot be read ({reason}); if it was cut off, move it away to resume from the one "
            "before"
        ) from None
    if not isinstance(state, dict) or not isinstance(state.get("step"), int) or "modules" not in state:
        raise ValueError(f"{path} is no training checkpoint")
    return state
