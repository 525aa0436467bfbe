"""Charts of what `mage evaluate representations` found, for one run or for several over one another."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mage.report.charts import Bar, Series, bar_chart, line_chart
from mage.report.glossary import finite, format_value


def measured_curves(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """name of a run -> content of its representations.json; charts for whatever is there, else ""."""
    charts = [
        ("Few labels", _few_shot(runs)),
        ("Corruptions, by severity", _severities(runs)),
        ("Attacks (PGD), largest change of a pixel", _attacks(runs, "linf", 255, "budget in 255ths")),
        ("Attacks (PGD), Euclidean norm of the change", _attacks(runs, "l2", 1, "norm of the change")),
    ]
    cells = "".join(f'<div class="chart"><h3>{escape(title)}</h3>{chart}</div>' for title, chart in charts if chart)
    return (f'<div class="halves">{cells}</div>' if cells else "") + _kinds(runs)


def _few_shot(runs: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name, values in runs.items():
        points = [
            (one["per_class"], 100 * one["mean"]) for one in _records(values.get("few_shot"), "per_class", "mean")
        ]
        lines.append(Series(name, points, markers=True))
    return _chart(lines, "Accuracy (%) from some labelled images per class", "images per class")


def _severities(runs: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name, values in runs.items():
        table = _table(values.get("corruption_accuracy"))
        severities = sorted({severity for found in table.values() for severity in found})
        points = []
        clean = finite(values.get("metrics", {}).get("corruption_clean_accuracy"))
        if table and clean is not None:
            points.append((0.0, 100 * clean))
        for severity in severities:
            found = [accuracies[severity] for accuracies in table.values() if severity in accuracies]
            points.append((severity, 100 * sum(found) / len(found)))
        lines.append(Series(name, points, markers=True))
    return _chart(lines, "Accuracy (%) on corrupted images, mean over kinds", "severity")


def _attacks(runs: Mapping[str, Mapping[str, Any]], norm: str, scale: float, x_label: str) -> str:
    lines = []
    for name, values in runs.items():
        records = [one for one in _records(values.get("attacks"), "budget", "pgd", "clean") if one.get("norm") == norm]
        points = [(0.0, 100 * records[0]["clean"])] if records else []
        points += [(scale * one["budget"], 100 * one["pgd"]) for one in records]
        lines.append(Series(name, points, markers=True))
    return _chart(lines, "Accuracy (%) under attack", x_label)


def _kinds(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Bars for one run, a table for several."""
    tables = {name: values.get("corruption_accuracy_per_kind") for name, values in runs.items()}
    found = {name: table for name, table in tables.items() if isinstance(table, dict)}
    kinds = list(dict.fromkeys(kind for table in found.values() for kind in table))
    if not kinds:
        return ""
    if len(found) == 1:
        table = next(iter(found.values()))
        bars = [Bar(_words(kind), finite(table[kind]) or 0.0, _percent(table[kind])) for kind in kinds]
        chart = bar_chart(bars, title="Accuracy per kind of corruption", most=1.0)
        return f'<h3>Corruptions, by kind</h3><div class="chart wide">{chart}</div>'
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in found)
    rows = []
    for kind in kinds:
        cells = "".join(f'<td class="value">{escape(_percent(table.get(kind)))}</td>' for table in found.values())
        rows.append(f'<tr><th scope="row">{escape(_words(kind))}</th>{cells}</tr>')
    return (
        '<h3>Corruptions, by kind</h3><div class="scroll"><table class="compare"><thead><tr><td></td>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _words(kind: str) -> str:
    return str(kind).replace("_", " ")


def _percent(value: Any) -> str:
    return format_value("corruption_accuracy", value)


def _chart(lines: Sequence[Series], title: str, x_label: str) -> str:
    return line_chart([line for line in lines if line.points], title=title, x_label=x_label, width=500, height=260)


def _records(values: Any, *numbers: str) -> list[dict[str, Any]]:
    """The records that have these numbers; files of others may hold anything."""
    records = values if isinstance(values, list) else []
    return [
        one for one in records if isinstance(one, dict) and all(finite(one.get(name)) is not None for name in numbers)
    ]


def _table(values: Any) -> dict[str, dict[float, float]]:
    """Kind -> severity -> accuracy; JSON has turned severities into text."""
    table = {}
    for kind, found in values.items() if isinstance(values, dict) else ():
        if isinstance(found, dict):
            table[kind] = {float(key): value for key, value in found.items() if finite(value) is not None}
    return {kind: found for kind, found in table.items() if found}
