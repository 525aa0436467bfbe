"""Charts of the metrics of `mage evaluate representations`, for one or several runs."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mage.report.charts import Bar, Series, bar_chart, line_chart
from mage.report.glossary import finite, format_value, mapping


def measured_curves(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """HTML of all charts for which the runs have data, or "". runs: name -> content of representations.json."""
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
            (details["per_class"], 100 * accuracy)
            for accuracy, details in _with_details(values, r"fewshot\d+_accuracy", "per_class")
        ]
        lines.append(Series(name, points, markers=True))
    return _chart(lines, "Accuracy (%) from few labelled images per class", "images per class")


def _severities(runs: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name, values in runs.items():
        table = _table(_corruptions(values).get("accuracy"))
        severities = sorted({severity for accuracies in table.values() for severity in accuracies})
        points = []
        clean = finite(mapping(values, "metrics").get("corruption_clean_accuracy"))
        if table and clean is not None:
            points.append((0.0, 100 * clean))
        for severity in severities:
            shares = [accuracies[severity] for accuracies in table.values() if severity in accuracies]
            points.append((severity, 100 * sum(shares) / len(shares)))
        lines.append(Series(name, points, markers=True))
    return _chart(lines, "Accuracy (%) on corrupted images, mean over kinds", "severity")


def _attacks(runs: Mapping[str, Mapping[str, Any]], norm: str, scale: float, x_label: str) -> str:
    lines = []
    for name, values in runs.items():
        attacks = _with_details(values, rf"pgd_{norm}_[\d.]+_accuracy", "budget", "clean")
        points = [(0.0, 100 * attacks[0][1]["clean"])] if attacks else []
        points += [(scale * details["budget"], 100 * accuracy) for accuracy, details in attacks]
        lines.append(Series(name, points, markers=True))
    return _chart(lines, "Accuracy (%) under attack", x_label)


def _kinds(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Bars for one run, a table for several."""
    per_run = {name: _corruptions(values).get("per_kind") for name, values in runs.items()}
    tables = {name: table for name, table in per_run.items() if isinstance(table, dict)}
    kinds = list(dict.fromkeys(kind for table in tables.values() for kind in table))
    if not kinds:
        return ""
    if len(tables) == 1:
        table = next(iter(tables.values()))
        bars = [Bar(_words(kind), finite(table[kind]) or 0.0, _percent(table[kind])) for kind in kinds]
        chart = bar_chart(bars, title="Accuracy per kind of corruption", most=1.0)
        return f'<h3>Corruptions, by kind</h3><div class="chart wide">{chart}</div>'
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in tables)
    rows = []
    for kind in kinds:
        cells = "".join(f'<td class="value">{escape(_percent(table.get(kind)))}</td>' for table in tables.values())
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


def _with_details(values: Mapping[str, Any], form: str, *numbers: str) -> list[tuple[float, dict[str, Any]]]:
    """Pairs of value and details of the metrics of this form whose details have these numbers; others are left out."""
    metrics, details = mapping(values, "metrics"), mapping(values, "details")
    pairs = [(finite(value), details.get(name)) for name, value in metrics.items() if re.fullmatch(form, str(name))]
    return [
        (value, its_details)
        for value, its_details in pairs
        if value is not None
        and isinstance(its_details, dict)
        and all(finite(its_details.get(number)) is not None for number in numbers)
    ]


def _corruptions(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(mapping(values, "details"), "corruption_accuracy")


def _table(values: Any) -> dict[str, dict[float, float]]:
    """Kind -> severity -> accuracy, from JSON, where severities are strings; other keys and values are left out."""
    table = {}
    for kind, accuracies in values.items() if isinstance(values, dict) else ():
        if isinstance(accuracies, dict):
            numbers = {key: finite(value) for key, value in accuracies.items() if str(key).isdecimal()}
            table[kind] = {float(key): value for key, value in numbers.items() if value is not None}
    return {kind: accuracies for kind, accuracies in table.items() if accuracies}
