"""Comparison of several runs on one self-contained page: a table of all metrics, charts of probes and training."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from mage import atomic
from mage.report.charts import Bar, Series, bar_chart, line_chart
from mage.report.contents import Contents, read_contents
from mage.report.curves import measured_curves
from mage.report.glossary import CURVES, accuracy_bars, describe, finite, format_value
from mage.report.page import page_frame
from mage.report.sections import Section, figure

WATCHED = ("online/linear", "online/knn", "valid/accuracy", "valid/loss")
"""Curves that are drawn in one chart if at least two runs have them."""


def write_comparison(run_folders: Sequence[Path], path: Path) -> Path:
    """Write the page. Raises ValueError for fewer than two runs, or a folder that is not a run."""
    if len(run_folders) < 2:
        raise ValueError("a comparison needs at least two runs")
    runs = dict(zip(run_names(run_folders), map(read_contents, run_folders), strict=True))
    atomic.write_text(path, build_comparison(runs))
    return path


def run_names(folders: Sequence[Path]) -> list[str]:
    """The shortest distinct ends of the paths. Raises ValueError for equal paths."""
    whole = [folder.resolve().parts for folder in folders]
    if len(set(whole)) < len(whole):
        raise ValueError("the same run is named twice")
    for length in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-length:]) for parts in whole]
        if len(set(names)) == len(names):
            break
    return names


def build_comparison(runs: dict[str, Contents]) -> str:
    """The HTML text of the page."""
    sections = [
        Section("probes", "Representations", "Accuracy on frozen features and of fine-tuning.", _probes(runs)),
        Section("samples", "Samples", "In the order of generation; none was selected.", _samples(runs)),
        Section("training", "Training curves", "Each run by its own steps.", _curves(runs)),
        Section("numbers", "All numbers", "The best value of each metric with a direction is bold.", _table(runs)),
    ]
    problems = [f"{name}: {problem}" for name, contents in runs.items() for problem in contents.problems]
    heading = (
        f'<p class="eyebrow">MAGE comparison</p><h1>{len(runs)} runs</h1>'
        f'<p class="byline">{"".join(f"<span>{escape(name)}</span>" for name in runs)}</p>'
    )
    return page_frame("comparison", heading, [section for section in sections if section.body], problems)


def _probes(runs: dict[str, Contents]) -> str:
    parts = []
    names = dict.fromkeys(name for contents in runs.values() for name in contents.part("metrics"))
    for metric in accuracy_bars(names):
        bars = []
        for name, contents in runs.items():
            value = finite(contents.part("metrics").get(metric))
            if value is not None:
                bars.append(Bar(name, value, format_value(metric, value)))
        chart = bar_chart(bars, title=describe(metric).title, most=1.0, width=500)
        if len(bars) > 1:
            parts.append(f'<div class="chart"><h3>{escape(describe(metric).title)}</h3>{chart}</div>')
    measured = {name: contents.representations for name, contents in runs.items() if contents.representations}
    bars_of_all = f'<div class="halves">{"".join(parts)}</div>' if parts else ""
    return bars_of_all + (measured_curves(measured) if measured else "")


def _samples(runs: dict[str, Contents]) -> str:
    cells = []
    for name, contents in runs.items():
        picture = contents.figures.get("samples") or (contents.progress[-1][1] if contents.progress else None)
        if picture is not None:
            cells.append(figure(picture, name))
    return f'<div class="halves">{"".join(cells)}</div>' if cells else ""


def _curves(runs: dict[str, Contents]) -> str:
    parts = []
    for metric in WATCHED:
        lines = []
        for name, contents in runs.items():
            points = [(line["step"], finite(line[metric])) for line in contents.log if metric in line]
            if points:
                lines.append(Series(name, points, markers=len(points) <= 20))
        title = CURVES.get(metric, describe(metric).title)
        chart = line_chart(lines, title=title, width=500, height=260) if len(lines) > 1 else ""
        if chart:
            parts.append(f'<div class="chart"><h3>{escape(title)}</h3>{chart}</div>')
    return f'<div class="halves">{"".join(parts)}</div>' if parts else ""


def _table(runs: dict[str, Contents]) -> str:
    names = list(dict.fromkeys(str(name) for contents in runs.values() for name in contents.part("metrics")))
    rows = []
    for metric in names:
        entry = describe(metric)
        values = [finite(contents.part("metrics").get(metric)) for contents in runs.values()]
        known = [value for value in values if value is not None]
        if not known:
            continue
        best = {"higher": max, "lower": min}[entry.better](known) if entry.better and len(known) > 1 else None
        cells = "".join(
            f'<td class="value{" best" if value is not None and value == best else ""}">'
            f"{escape(format_value(metric, value)) if value is not None else ''}</td>"
            for value in values
        )
        explanation = escape(entry.explanation, quote=True)
        rows.append(f'<tr><th scope="row" title="{explanation}">{escape(entry.title)}</th>{cells}</tr>')
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in runs)
    return (
        f'<div class="scroll"><table class="compare"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
