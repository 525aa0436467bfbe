"""A run's diary: metrics.jsonl, one JSON object per line, and the same in TensorBoard where that is installed."""

import json
import math
from pathlib import Path
from typing import Any


class RunLog:
    """Appends to `metrics.jsonl` in a run folder. On resume, lines after `step` are cut off: they will come again."""

    def __init__(self, folder: Path, *, step: int = 0) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_log(folder) if line["step"] <= step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a")
        self._board = _summary_writer(folder / "tensorboard", step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log numbers under a step; those that are not finite become null."""
        finite: dict[str, Any] = {name: _rounded(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush everything to disk."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line that was cut by a crash is left out."""
    path = folder / "metrics.jsonl"
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _rounded(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the extra `tracking` is not installed
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
