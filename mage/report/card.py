"""Model cards: what a packaged model is, as text that is made from its record."""

from mage.report.glossary import describe, format_value
from mage.store.packaged import Card

HEADLINE = 4
"""Measures in the line of a list."""


def headline(card: Card) -> str:
    """The first measures, in a line."""
    metrics = list(card.record["metrics"].items())[:HEADLINE]
    return ", ".join(f"{describe(name).title} {format_value(name, value)}" for name, value in metrics)


def card_text(name: str, card: Card) -> str:
    """The card as Markdown."""
    record = card.record
    lines = [f"# {name}: {card.title}", "", f"- **Data**: {card.data}", f"- **Licence**: {card.licence}"]
    lines += [
        f"- **Made by** `{record['command']}`, seed {record['seed']}, commit {record['commit']}, "
        f"{record['seconds'] / 60:.0f} minutes on {record['machine']}",
        f"- **Weights**: SHA-256 {card.weights}",
        "",
        "| measure | value | meaning |",
        "|---|---|---|",
    ]
    for metric, value in record["metrics"].items():
        description = describe(metric)
        lines.append(f"| {description.title} | {format_value(metric, value)} | {description.explanation} |")
    lines += ["", *(f"- {key}: {text}" for key, text in record["protocol"].items())]
    if card.limits:
        lines += ["", "## Limits", "", *(f"- {limit}" for limit in card.limits)]
    return "\n".join(lines)
