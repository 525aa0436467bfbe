"""Contents of a run folder for a report. All files are optional; those that cannot be read are named in the report."""

import base64
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from mage.report.glossary import finite
from mage.training.runlog import read_log

SINGLE = (
    "recipe.yaml", "metrics.jsonl", "results.json", "representations.json", "generation.json", "codes.json",
    "adapt.json", "evaluation.json", "run.json",
)  # fmt: skip
FIGURES = (
    "samples", "classes", "clusters", "reconstruct", "edit", "neighbours", "nearest", "tokenizer", "samples_before",
    "before_after",
)  # fmt: skip
PACKAGED = "packaged"
"""Subfolder of a demo with the same contents of the packaged model."""
MOST_STEPS = 6
"""Largest number of sample grids from the course of a training."""


@dataclass(frozen=True)
class Picture:
    """A PNG file, to be embedded in a page."""

    data: bytes
    width: int
    height: int

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.data).decode()


@dataclass
class Contents:
    """The contents of a run folder for a page."""

    name: str
    date: datetime
    """Start of the training; of a folder without run.json, when its newest file was written."""
    recipe: str = ""
    results: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    tokenizer_log: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Picture] = field(default_factory=dict)
    progress: list[tuple[int, Picture]] = field(default_factory=list)
    """Pairs of step and sample grid in the course of training."""
    counts: list[int] = field(default_factory=list)
    """Number of occurrences of each code."""
    representations: dict[str, Any] = field(default_factory=dict)
    """Content of representations.json; its metrics and protocols are also among the results."""
    adaptation: dict[str, Any] = field(default_factory=dict)
    """Content of adapt.json."""
    run: dict[str, Any] = field(default_factory=dict)
    """Content of run.json: command, data and hardware."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals by metric."""
    problems: list[str] = field(default_factory=list)
    """One sentence for each file that could not be read."""
    packaged: "Contents | None" = None
    """Of the packaged model that the demo shows beside its own, in the subfolder `packaged`."""

    def part(self, name: str) -> dict[str, Any]:
        """A mapping in `results.json`; empty if it is missing."""
        value = self.results.get(name)
        return value if isinstance(value, dict) else {}


def read_contents(folder: Path) -> Contents:
    """Read a run folder. Raises ValueError if `folder` is not one."""
    if not folder.is_dir():
        raise ValueError(f"there is no run folder {folder}")
    single = [folder / name for name in SINGLE]
    single += [folder / "figures" / f"{name}.png" for name in FIGURES] + [folder / "side_by_side.png"]
    steps = sorted((folder / "samples").glob("step-*.png"), key=_step)
    present = [path for path in [*single, folder / "tokenizer" / "metrics.jsonl", *steps] if path.is_file()]
    if not present:
        raise ValueError(
            f"{folder} is not a run folder: it holds no recipe.yaml, metrics.jsonl, results.json, figures or samples"
        )
    newest = datetime.fromtimestamp(max(path.stat().st_mtime for path in present))
    contents = Contents(folder.resolve().name or "run", newest)
    for path in present:
        try:
            _read(path, folder, contents)
        except (ValueError, TypeError, OSError, RecursionError, Image.DecompressionBombError, SyntaxError) as error:
            reason = " ".join(str(error).split())[:200]
            contents.problems.append(f"{path.relative_to(folder)} could not be read: {reason}")
    contents.date = _started(contents.run) or newest
    contents.progress = _spread(contents.progress)
    if (folder / PACKAGED / "results.json").is_file():
        contents.packaged = read_contents(folder / PACKAGED)
        contents.problems += [f"{PACKAGED}: {problem}" for problem in contents.packaged.problems]
    return contents


def _started(run: Mapping[str, Any]) -> datetime | None:
    """When the training started, which a copy of the folder does not change; None where run.json does not say."""
    try:
        return datetime.fromisoformat(str(run.get("started")))
    except ValueError:
        return None


def _read(path: Path, folder: Path, contents: Contents) -> None:
    name = str(path.relative_to(folder).as_posix())
    readers: dict[str, Callable[[], None]] = {
        "recipe.yaml": lambda: setattr(contents, "recipe", path.read_text(encoding="utf-8")),
        "results.json": lambda: _set_results(contents, _mapping(path)),
        "representations.json": lambda: _add_representations(contents, _mapping(path)),
        "generation.json": lambda: _add_evaluation(contents, _mapping(path)),
        "adapt.json": lambda: setattr(contents, "adaptation", _mapping(path)),
        "evaluation.json": lambda: _add_evaluation(contents, _mapping(path)),
        "run.json": lambda: setattr(contents, "run", _mapping(path)),
        "codes.json": lambda: setattr(contents, "counts", _counts(path)),
        "metrics.jsonl": lambda: setattr(contents, "log", _log(folder)),
        "tokenizer/metrics.jsonl": lambda: setattr(contents, "tokenizer_log", _log(folder / "tokenizer")),
    }
    if name in readers:
        readers[name]()
    elif path.parent.name == "figures" or path.stem == "side_by_side":
        contents.figures[path.stem] = _picture(path)
    else:
        contents.progress.append((_step(path), _picture(path)))


def _mapping(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it does not hold a mapping of names to values")
    return value


def _add_representations(contents: Contents, values: dict[str, Any]) -> None:
    contents.representations = values
    _add_evaluation(contents, values)


def _set_results(contents: Contents, values: dict[str, Any]) -> None:
    contents.results = values
    contents.intervals |= intervals_of(values)


def _add_evaluation(contents: Contents, values: dict[str, Any]) -> None:
    """Add metrics, protocols and intervals of an evaluation to the results."""
    _add_results(contents, metrics=values.get("metrics"), protocol=values.get("protocols"))
    contents.intervals |= intervals_of(values)


def intervals_of(values: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """95 % intervals in the details of an evaluation, by metric: from low to high, or half a width around the value."""
    details, metrics = values.get("details"), values.get("metrics")
    parts = values.get("intervals")
    if isinstance(details, dict):
        parts = {name: part.get("interval") for name, part in details.items() if isinstance(part, dict)}
    found = dict[str, tuple[float, float]]()
    for name, interval in parts.items() if isinstance(parts, dict) else ():
        value, half = finite(metrics.get(name)) if isinstance(metrics, dict) else None, finite(interval)
        if value is not None and half is not None:
            found[str(name)] = value - half, value + half
        elif isinstance(interval, list) and len(interval) == 2:
            low, high = map(finite, interval)
            if low is not None and high is not None:
                found[str(name)] = low, high
    return found


def _add_results(contents: Contents, **parts: Any) -> None:
    for part, more in parts.items():
        own = contents.results.get(part)
        if isinstance(more, dict) and isinstance(own, dict | None):
            contents.results[part] = (own or {}) | more


def _counts(path: Path) -> list[int]:
    counts = _mapping(path).get("counts")
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError('it does not hold a list of numbers named "counts"')
    return counts


def _log(folder: Path) -> list[dict[str, Any]]:
    lines = read_log(folder)
    if not lines and (folder / "metrics.jsonl").stat().st_size:
        raise ValueError("no line of it is a JSON object with a step")
    return lines


def _picture(path: Path) -> Picture:
    """Read and decode a picture, so that a broken file raises an error here; other formats are converted to PNG."""
    with Image.open(path) as image:
        image.load()
        if image.format == "PNG":
            return Picture(path.read_bytes(), image.width, image.height)
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format="PNG")
        return Picture(buffer.getvalue(), image.width, image.height)


def _step(path: Path) -> int:
    digits = re.search(r"(\d+)$", path.stem)
    return int(digits[1]) if digits else 0


def _spread(progress: list[tuple[int, Picture]]) -> list[tuple[int, Picture]]:
    """At most MOST_STEPS of them, evenly spaced, including the first and the last."""
    if len(progress) <= MOST_STEPS:
        return progress
    last = len(progress) - 1
    return [progress[round(index * last / (MOST_STEPS - 1))] for index in range(MOST_STEPS)]
