"""Answers of a classifier in a report: accuracy by class with intervals, and the confusion matrix."""

from collections.abc import Mapping
from html import escape
from typing import Any

from mage.report.glossary import describe, finite

MOST_ROWS = 30
"""Largest number of classes that are drawn as a matrix; of more, the most frequent confusions are listed."""


def classes_of_classifiers(values: Mapping[str, Any]) -> str:
    """HTML for each metric in `representations.json` whose details tell its answers by class; "" if there is none."""
    details = values.get("details")
    parts = []
    for name, answers in details.items() if isinstance(details, dict) else ():
        if isinstance(answers, dict) and isinstance(answers.get("per_class"), dict):
            inner = _accuracies(answers["per_class"]) + (_matrix(answers) or _confusions(answers))
            parts.append(f"<h3>{escape(describe(str(name)).title)}, by class</h3>{inner}" if inner else "")
    return "".join(parts)


def _accuracies(per_class: Mapping[str, Any]) -> str:
    """A table of classes, the lowest accuracy first: the bar is the accuracy, the line its 95 % interval."""
    rows = []
    for name, values in per_class.items():
        numbers = (
            [finite(values.get(key)) for key in ("accuracy", "low", "high", "images")]
            if isinstance(values, dict)
            else []
        )
        if numbers and all(number is not None and number >= 0 for number in numbers):
            accuracy, low, high, images = (float(number or 0) for number in numbers)
            rows.append((accuracy, low, high, int(images), str(name)))
    cells = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="reach">{_bar(accuracy, low, high)}</td>'
        f'<td class="value">{100 * accuracy:.1f}&nbsp;%</td>'
        f"<td>{100 * low:.1f} to {100 * high:.1f}&nbsp;%, {images:,} images</td></tr>"
        for accuracy, low, high, images, name in sorted(rows)
    )
    if not cells:
        return ""
    return (
        f'<div class="scroll"><table class="classes"><tbody>{cells}</tbody></table></div>'
        '<p class="after">The classes with the lowest accuracy first. The line in each bar, and the numbers behind it, '
        "are the 95 % interval (Wilson): few images leave it wide.</p>"
    )


def _bar(accuracy: float, low: float, high: float) -> str:
    return (
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="10"/>'
        f'<rect class="fill-0" width="{100 * min(1.0, accuracy):.2f}" height="10"/>'
        f'<rect class="whisker" x="{100 * low:.2f}" y="4" width="{100 * max(0.0, high - low):.2f}" height="2"/></svg>'
    )


def _matrix(answers: Mapping[str, Any]) -> str:
    """The confusion matrix as a table of counts, shaded by their share of the row."""
    names, counts = answers.get("class_names"), answers.get("confusion")
    if not isinstance(names, list) or not isinstance(counts, list) or not 2 <= len(names) == len(counts) <= MOST_ROWS:
        return ""
    rows = []
    for true, row in zip(names, counts, strict=True):
        if not isinstance(row, list) or len(row) != len(names) or not all(isinstance(n, int) and n >= 0 for n in row):
            return ""
        total = sum(row) or 1
        cells = "".join(
            f'<td class="{"right" if taken == true else "wrong"}" style="--share: {100 * count / total:.0f}%" '
            f'title="{escape(f"{true} taken for {taken}: {count:,}", quote=True)}">{count if count else ""}</td>'
            for taken, count in zip(names, row, strict=True)
        )
        rows.append(f'<tr><th scope="row">{escape(str(true))}</th>{cells}</tr>')
    head = "".join(f'<th scope="col"><span>{escape(str(name))}</span></th>' for name in names)
    return (
        f'<div class="scroll"><table class="confusion"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="after">Rows are true classes, columns are answers, cells count test images.</p>'
    )


def _confusions(answers: Mapping[str, Any]) -> str:
    """The most frequent confusions as a list."""
    items = [
        f"<li>{escape(str(true))} taken for {escape(str(taken))}: {escape(str(count))} images</li>"
        for true, taken, count in (row for row in _rows(answers.get("confusions")) if len(row) == 3)
    ]
    return f"<p>Most frequent confusions:</p><ul>{''.join(items)}</ul>" if items else ""


def _rows(values: Any) -> list[list[Any]]:
    return [row for row in values if isinstance(row, list)] if isinstance(values, list) else []
