"""Commands that are killed at a chosen instant, and the content of what they write: used by studies/faults.py.

Each command runs in a forked process that has PyTorch imported already. It is killed by SIGKILL after a time, or by
itself at its n-th call that changes the disk: before it, after it, or in the middle of what is written into a file.
"""

import builtins
import io
import json
import os
import random
import shutil
import signal
import sys
import tarfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from safetensors.torch import load_file

from mage import atomic
from mage.cli.main import main
from mage.training.checkpoint import read_checkpoint

CALLS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")
"""Functions of `os` that are counted, with `open` for writing and the swap of two folders."""
CLOCKS = ("seconds", "images_per_second")
"""Entries of metrics.jsonl that differ between any two runs."""
FACTS = "run.json"
"""A file whose values tell of the machine and the time."""


@dataclass(frozen=True)
class Instant:
    """When a command is killed."""

    call: int | None = None
    """Number of the call, from 0."""
    place: Literal["before", "after", "inside"] = "before"
    """Before or after the call; inside: after half of the first piece that is written into the opened file."""
    seconds: float = 0.0
    """Without a call: after so long."""


class Hook:
    """Counts calls that change the disk, and kills this process at one of them."""

    def __init__(self, instant: Instant | None) -> None:
        self.instant, self.count = instant, 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted."""

        def counted(*arguments: Any, **more: Any) -> Any:
            place = self._next()
            if place in ("before", "inside"):
                die()
            try:
                return function(*arguments, **more)
            finally:
                if place == "after":  # also if it was refused, as making a folder is that exists
                    die()

        return counted

    def open(self, file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        """`open`; counted where it writes."""
        if not set(mode) & set("wax+"):
            return REAL_OPEN(file, mode, *arguments, **more)
        place = self._next()
        if place == "before":
            die()
        if place == "inside":
            half = io.BufferedWriter(Half(file, mode.replace("b", "").replace("t", "")))
            return half if "b" in mode else io.TextIOWrapper(half)
        opened = REAL_OPEN(file, mode, *arguments, **more)
        if place == "after":
            die()
        return opened

    def _next(self) -> str | None:
        number, self.count = self.count, self.count + 1
        return self.instant.place if self.instant is not None and self.instant.call == number else None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Context in which the calls go through this hook."""
        before = {name: getattr(os, name) for name in CALLS}
        exchange = atomic._exchange
        for name, function in before.items():
            setattr(os, name, self.around(function))
        atomic._exchange = self.around(exchange)
        builtins.open = io.open = self.open
        try:
            yield
        finally:
            for name, function in before.items():
                setattr(os, name, function)
            atomic._exchange = exchange
            builtins.open = io.open = REAL_OPEN


REAL_OPEN = open


class Half(io.FileIO):
    """A file into which half of the first piece is written, before the process is killed."""

    def write(self, data: Any) -> int:
        super().write(bytes(data)[: len(data) // 2])
        die()
        return 0


def die() -> None:
    """End this process as a power cut does: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; -9 if it was killed."""
    calls: int
    """Calls that change the disk; of a command that was killed, 0."""
    seconds: float
    text: str
    """What it printed."""


def run(arguments: list[str], instant: Instant | None, scratch: Path) -> Ended:
    """Run `mage ARGUMENTS` in a forked process, and kill it at an instant."""
    output, counted = scratch / "output.txt", scratch / "calls.txt"
    counted.unlink(missing_ok=True)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(arguments, instant, output, counted)
    if instant is not None and instant.call is None:
        time.sleep(max(0.0, instant.seconds))
        os.kill(child, signal.SIGKILL)  # until it is waited for, its number is not given to another process
    _, status = os.waitpid(child, 0)
    calls = int(counted.read_text()) if counted.exists() else 0
    text = output.read_text(errors="replace")
    return Ended(os.waitstatus_to_exitcode(status), calls, time.monotonic() - start, text)


def _child(arguments: list[str], instant: Instant | None, output: Path, counted: Path) -> None:
    """Never returns: the parent's own work must not go on here."""
    code = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = sys.stderr = REAL_OPEN(1, "w", closefd=False)
        sys.argv = ["mage", *arguments]
        hook = Hook(instant)
        with hook.installed():
            try:
                main(arguments)
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
            except BaseException:
                traceback.print_exc()
        counted.write_text(str(hook.count))
        sys.stdout.flush()
    finally:
        os._exit(code)


def draw(generator: random.Random, whole: Ended) -> Instant:
    """A random instant of a command: by calls or by time, each in half of the draws."""
    if generator.random() < 0.5:
        return Instant(seconds=generator.random() * whole.seconds)
    places: list[Literal["before", "after", "inside"]] = ["before", "after", "inside"]
    return Instant(generator.randrange(whole.calls), generator.choice(places))


def content(out: Path) -> dict[str, Any]:
    """All that a command wrote, comparable to the last bit: by path, and by line of a log and member of a tar.

    Raises ValueError naming the file that cannot be read. Times and machine are left out.
    """
    found: dict[str, Any] = {}
    for path in files(out):
        name = path.relative_to(out.parent).as_posix()
        try:
            found[name] = _read(path)
        except Exception as error:  # whatever a damaged file raises
            raise ValueError(f"{name}: {' '.join(str(error).split())[:200]}") from None
    return found


def files(out: Path) -> list[Path]:
    """The files of a command's output under their final names; the folder that holds the output holds nothing else."""
    return sorted(path for path in out.parent.rglob("*") if path.is_file() and not is_trace(path, out.parent))


def traces(out: Path) -> list[str]:
    """Temporary files and locks."""
    return sorted(path.name for path in out.parent.rglob("*") if _named_as_trace(path.name))


def is_trace(path: Path, root: Path) -> bool:
    """Whether a file is temporary, or in a temporary folder."""
    return any(_named_as_trace(part) for part in path.relative_to(root).parts)


def _named_as_trace(name: str) -> bool:
    return bool(atomic.TEMPORARY.fullmatch(name) or atomic.LOCK.fullmatch(name))


def _read(path: Path) -> Any:
    data = path.read_bytes()
    if path.name == FACTS:
        return sorted(json.loads(data))
    if path.suffix == ".json":
        json.loads(data)
    elif path.suffix == ".jsonl":
        return [
            {key: value for key, value in json.loads(line).items() if key not in CLOCKS} for line in data.splitlines()
        ]
    elif path.suffix == ".pt":
        return _plain(read_checkpoint(path))
    elif path.suffix == ".safetensors":
        load_file(path)
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".tar":
        with tarfile.open(path) as shard:
            return [(entry.name, shard.extractfile(entry).read()) for entry in shard]  # type: ignore[union-attr]
    elif path.suffix in (".npz", ".pth"):
        with zipfile.ZipFile(path) as parts:
            if parts.testzip() is not None:
                raise ValueError("a part does not fit its checksum")
    return zlib.crc32(data), len(data)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    return value


def doubled(found: dict[str, Any]) -> list[str]:
    """Lines of logs and members of shards that are there twice."""
    twice: list[str] = []
    for name, value in found.items():
        if name.endswith(".jsonl"):
            keys = [(line["step"], *sorted(line)) for line in value]
        elif name.endswith(".tar"):
            keys = [entry[0] for entry in value]
        else:
            continue
        twice += [f"{name}: {key}" for key in dict.fromkeys(keys) if keys.count(key) > 1]
    return twice


def remove(path: Path) -> None:
    """Remove a folder if it is there."""
    shutil.rmtree(path, ignore_errors=True)
