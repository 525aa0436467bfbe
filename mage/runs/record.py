"""Result files: metrics with their command, commit and machine."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import mage
from mage import atomic, distributed


@dataclass(frozen=True)
class Record:
    """One measurement, as committed under results/."""

    command: str
    seed: int
    protocol: dict[str, str]
    timings: dict[str, float]
    """Seconds per part."""
    metrics: dict[str, float]
    intervals: dict[str, list[float]] = field(default_factory=dict)
    """95 % intervals, low and high, of metrics that have one."""

    def as_dict(self) -> dict[str, Any]:
        """The record as a dictionary, with commit, machine and total seconds."""
        values = asdict(self)
        values["seconds"] = round(self.timings.get("total", sum(self.timings.values())), 1)
        values["timings"] = {name: round(seconds, 1) for name, seconds in self.timings.items()}
        values["metrics"] = {name: float(f"{value:.6g}") for name, value in self.metrics.items()}
        if not values["intervals"]:
            del values["intervals"]
        return {"commit": commit(), "machine": machine(), **values}


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, atomically."""
    atomic.write_json(path, record.as_dict())


def command_line(command: str) -> str:
    """The command line, if the program is `mage` or `python -m mage`; else `command`, for scripts and tests."""
    program = Path(sys.argv[0])
    own = program.stem == "mage" or program == Path(mage.__file__).with_name("__main__.py")
    return shell_line(sys.argv[1:]) if own else command


def shell_line(words: Sequence[str]) -> str:
    """`mage` with these words as a shell takes them, behind torchrun, whose options are not known, if it started us."""
    program = ["torchrun ...", "-m", "mage"] if distributed.world_size() > 1 else ["mage"]
    quoted = subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
    return " ".join([*program, quoted])


def commit() -> str:
    """The commit of this code, with + if files were changed since; else the version."""
    folder = Path(mage.__file__).parent
    try:
        process = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return f"mage-vision {mage.__version__}"
    return process.stdout.strip()


def machine() -> str:
    """Processor, cores, memory and the version of PyTorch."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {cores} cores{gpu}, torch {torch.__version__}"
