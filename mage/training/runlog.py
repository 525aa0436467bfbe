"""A run's metrics: metrics.jsonl, one JSON object per line, and the recipe's trackers."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mage import atomic
from mage.training.trackers import TRACKERS


class RunLog:
    """Appends to `metrics.jsonl` in a run folder. On resume, lines after `step` are removed: they are written again."""

    def __init__(
        self, folder: Path, *, step: int = 0, trackers: Sequence[str] = (), settings: Mapping[str, Any] | None = None
    ) -> None:
        """trackers: names of TRACKERS. settings: passed to them. Raises ValueError for a missing one."""
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:  # if one cannot start, those before it are closed
            self._trackers = []
            for name in trackers:
                self._trackers.append(TRACKERS.get(name)(folder, step, settings or {}))
                opened.callback(self._trackers[-1].close)
            self.path = folder / "metrics.jsonl"
            kept = [line for line in read_log(folder) if line["step"] <= step]
            atomic.write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
            self._file = opened.enter_context(self.path.open("a"))
            self._opened = opened.pop_all()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step; numbers that are not finite become null."""
        finite: dict[str, Any] = {name: _rounded(value) for name, value in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            self._file.flush()
        except OSError as error:
            raise atomic.explain(error, self.path) from None
        for tracker in self._trackers:
            tracker.log(step, values)

    def close(self) -> None:
        """Flush everything to disk."""
        try:
            self._opened.close()
        except OSError as error:  # what could not be written is written again
            raise atomic.explain(error, self.path) from None


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl. Invalid lines, such as a last one cut off by a crash, are left out."""
    path = folder / "metrics.jsonl"
    lines = []
    for encoded in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            line = json.loads(encoded)
        except (ValueError, RecursionError):  # not JSON, not text, a huge number, or too deep nesting
            continue
        if isinstance(line, dict) and _is_step(line.get("step")):
            lines.append(line)
    return lines


def seconds_until(folder: Path, step: int) -> float:
    """Seconds that the run had taken when a step was logged, the last one up to `step`; 0 if there is none."""
    seconds = [line.get("seconds") for line in read_log(folder) if line["step"] <= step]
    return max((float(value) for value in seconds if isinstance(value, int | float)), default=0.0)


def _is_step(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63


def _rounded(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None
