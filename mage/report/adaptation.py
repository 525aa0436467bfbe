"""The section of a report on an adaptation: measures and samples of the model before and after."""

from collections.abc import Mapping
from html import escape
from typing import Any

from mage.report.contents import Contents, intervals_of
from mage.report.glossary import describe, finite, format_value, mapping
from mage.report.sections import Section, figure, interval_text

PICTURES = {
    "samples_before": "Samples of the given model.",
    "samples": "Samples of the new model, from the same random numbers.",
}


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Title and both values of each measure that both have; accuracies with their 95 % intervals."""
    rows = []
    for name, new in mapping(after, "metrics").items():
        old = mapping(before, "metrics").get(name)
        if finite(old) is not None and finite(new) is not None:
            texts = [
                format_value(name, value) + interval_text(intervals_of(values), name)
                for value, values in ((old, before), (new, after))
            ]
            rows.append((describe(name).title, texts[0], texts[1]))
    return rows


def adaptation_section(contents: Contents) -> Section:
    """Empty for a run that is no adaptation."""
    result = mapping(contents.adaptation, "result")
    before, after = mapping(contents.adaptation, "before"), mapping(result, "after")
    rows = "".join(
        f'<tr><th scope="row">{escape(title)}</th><td class="value">{escape(old)}</td>'
        f'<td class="value">{escape(new)}</td></tr>'
        for title, old, new in compared(before, after)
    )
    body = ""
    if rows:
        body = (
            '<div class="scroll"><table class="compare"><thead><tr><td></td><th scope="col">before</th>'
            f'<th scope="col">after</th></tr></thead><tbody>{rows}</tbody></table></div>'
        )
    body += "".join(f'<p class="after">{escape(str(text))}</p>' for text in _list(result, "warnings"))
    shown = [figure(contents.figures[name], text) for name, text in PICTURES.items() if name in contents.figures]
    if body and len(shown) == len(PICTURES):
        body += f'<div class="halves">{"".join(shown)}</div>'
    if body and "before_after" in contents.figures:
        body += figure(contents.figures["before_after"], "Test images, and what both tokenizers make of them.")
    lead = (
        f"Before: the model that was given. After: the model of this run; its tokenizer was "
        f"{escape(str(result.get('tokenizer', 'kept')))}. Both are measured on the same test images."
    )
    return Section("adaptation", "Before and after", lead, body)


def _list(values: Mapping[str, Any], name: str) -> list[Any]:
    part = values.get(name)
    return part if isinstance(part, list) else []
