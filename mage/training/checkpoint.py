"""Checkpoints of a run: finding the newest, reading one, dropping old ones. The engine says what is in them."""

from pathlib import Path
from typing import Any

import torch

from mage import atomic
from mage.settings import differences


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest training checkpoint of a run."""
    return max(folder.glob("checkpoints/step-*.pt"), default=None)


def write_checkpoint(state: dict[str, Any], folder: Path, step: int) -> None:
    """Write a checkpoint into the run folder, whole or not at all."""
    with atomic.replacing(folder / "checkpoints" / f"step-{step:09d}.pt") as temporary:
        torch.save(state, temporary)


def drop_old_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest."""
    for old in sorted(folder.glob("checkpoints/step-*.pt"))[:-keep]:
        old.unlink()


def read_checkpoint(path: Path, settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A checkpoint's content. Raises ValueError if it is damaged or was written under other settings."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is damaged ({reason}); delete it to resume from the one before") from None
    changed = differences(state["settings"], settings, added=False)
    if changed:
        raise ValueError(f"the run in {path.parent.parent} was begun with other settings: {changed[0]}")
    return state
