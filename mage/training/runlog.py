"""A run's numbers: metrics.jsonl, one JSON object per line, and the same to the trackers that the recipe asks for."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mage.training.trackers import TRACKERS


class RunLog:
    """Appends to `metrics.jsonl` in a run folder. On resume, lines after `step` are cut off: they will come again."""

    def __init__(
        self, folder: Path, *, step: int = 0, trackers: Sequence[str] = (), settings: Mapping[str, Any] | None = None
    ) -> None:
        """trackers: names of TRACKERS. settings: what they show too. Raises ValueError for a missing one."""
        self._trackers = [TRACKERS.get(name)(folder, step, settings or {}) for name in trackers]
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_log(folder) if line["step"] <= step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers under a step; those that are not finite become null."""
        finite: dict[str, Any] = {name: _rounded(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.log(step, values)

    def close(self) -> None:
        """Flush everything to disk."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, without a last one that was cut by a crash and what is no line of a log."""
    path = folder / "metrics.jsonl"
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            break
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def _rounded(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None
