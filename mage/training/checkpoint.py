"""Checkpoints of a run: find, read, write and remove them, and check whether a run may resume from one.

Their content is defined by the engine.
"""

import json
import logging
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mage import atomic, checksums
from mage.settings import differences
from mage.training.legacy import comparable
from mage.training.sharding import local

logger = logging.getLogger(__name__)

SUMS = "checksums.json"
"""Checksums of the files of a checkpoint in parts."""
FREE = ("data.name",)
"""Settings that may change when a run is resumed; the data's content is compared as `content`."""


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


def intact_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that can be read; newer ones that cannot are renamed to NAME.broken, with a warning.

    None if the run has no checkpoint. Raises ValueError if it has some, and none can be read.
    """
    while (path := newest_checkpoint(folder)) is not None:
        try:
            check_parts(path) if path.is_dir() else read_checkpoint(path)
        except ValueError as error:
            before = sorted(_checkpoints(folder), key=_step)[:-1]
            if not before:
                raise ValueError(
                    f"{error}, and there is none before it: start the run again in another folder"
                ) from None
            # It must not count as the newest one any more, or the next checkpoints would be dropped before it.
            path.replace(path.with_suffix(".broken"))
            logger.warning(
                "%s; it is now called %s.broken, and the one before is used: %s", error, path.stem, before[-1]
            )
            continue
        return path
    return None


def write_checkpoint(state: dict[str, Any], folder: Path, step: int) -> None:
    """Write a checkpoint into the run folder, atomically. Raises OSError; a full disk is named as the cause."""
    path = folder / "checkpoints" / f"step-{step:09d}.pt"
    with atomic.replacing(path) as temporary, open(temporary, "wb") as file:  # given a name, PyTorch stores it, too
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # which PyTorch hides, such as that of a full disk
                raise error.__context__ from None
            raise


def drop_old_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints."""
    for old in sorted(_checkpoints(folder), key=_step)[:-keep]:
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU. Raises ValueError if it was damaged, or is no checkpoint."""
    try:
        _check_bytes(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise any exception
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the checkpoint {path} cannot be read ({reason})") from None
    if not isinstance(state, dict) or not isinstance(state.get("step"), int) or "modules" not in state:
        raise ValueError(f"{path} is not a training checkpoint")
    return state


def seal_parts(folder: Path) -> None:
    """Write the checksums of all files of a checkpoint in parts into it."""
    atomic.write_json(folder / SUMS, checksums.sealed({file.name: checksums.of_file(file) for file in _files(folder)}))


def check_parts(folder: Path) -> None:
    """Raise ValueError if a file of a checkpoint in parts is missing or damaged."""
    try:
        _check_bytes(folder / "state.pt")
        expected = checksums.unsealed(json.loads((folder / SUMS).read_text()))
        found = {file.name: checksums.of_file(file) for file in _files(folder)}
    except (OSError, ValueError) as error:
        raise ValueError(f"the checkpoint {folder} cannot be read ({error})") from None
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong:
        raise ValueError(f"the checkpoint {folder} cannot be read ({wrong[0]} is missing or was damaged)")


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name != SUMS and not file.name.startswith("."))


def _check_bytes(path: Path) -> None:
    """Compare every part of a file with its checksum, which PyTorch writes and does not read."""
    try:
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise ValueError(f"it was cut off or damaged: {error}") from None
    if damaged is not None:
        raise ValueError(f"its part {damaged} does not fit its checksum: it was damaged")


def not_finite(modules: Mapping[str, nn.Module]) -> list[str]:
    """Names of weights and buffers that hold NaN or infinite numbers, in the rows of this process."""

    def wrong(tensors: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
        rows = ((name, local(tensor)) for name, tensor in tensors)
        return [name for name, tensor in rows if tensor.is_floating_point() and not bool(tensor.isfinite().all())]

    return [f"{name}.{part}" for name, module in modules.items() for part in wrong(module.state_dict().items())]


def check_resumed(
    state: Mapping[str, Any], folder: Path, settings: dict[str, Any], steps: int, *, free: Sequence[str] = ()
) -> None:
    """Raise ValueError if the run in `folder` cannot go on from a checkpoint with these settings for so many steps.

    free: last words of settings that may change, too.
    """
    changed = [line for line in changed_settings(state["settings"], settings) if _last_word(line) not in free]
    if changed:
        raise ValueError(
            f"the run in {folder} was started with other settings: {changed[0]}; resume with the same ones, "
            "or start a new run in another folder"
        )
    if steps < max(state["step"], state.get("steps", 0)):
        raise ValueError(
            f"the run in {folder} is {state.get('steps', state['step'])} steps long and can only become "
            f"longer: give at least as many steps, not {steps}"
        )


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings whose change would alter what a resumed run learns, such as "model.width: 192 is not 256".

    Settings that a newer version of the library added do not count, nor do the length of the run and the location of
    the same data.
    """
    before = comparable(before, now)
    lines = [line for name in now if name in before for line in differences(before[name], now[name], name, added=False)]
    return [
        line for line in lines if line.partition(":")[0] not in FREE and _last_word(line) not in ("steps", "epochs")
    ]


def _last_word(line: str) -> str:
    """Of the setting that a line of `changed_settings` begins with."""
    return line.partition(":")[0].rpartition(".")[2]
