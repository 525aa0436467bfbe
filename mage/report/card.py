"""Model cards: what a packaged model is, as text that is made from its record."""

from mage.report.glossary import describe, format_value
from mage.store.packaged import Card

HEADLINES = ("fd_", "class_accuracy", "sample_confident_share", "psnr_db", "linear_probe_accuracy", "knn_accuracy")
"""Measures in the line of a list, by the beginnings of their names."""
SHOWN = (
    *HEADLINES, "authentic", "near_copy_share", "real_confident_share", "codes_used", "linear_probe_mean_accuracy",
    "raw_pixel_accuracy", "control_",
)  # fmt: skip
"""Measures in the table of a card; the record has all."""
HELD_AGAINST = ("_real", "_restored")
"""Ends of the names of measures of other images than the model's."""


def headline(card: Card) -> str:
    """The most telling measures, in a line."""
    own = {name: value for name, value in card.record["metrics"].items() if not name.endswith(HELD_AGAINST)}
    chosen = [next((name for name in own if name.startswith(start)), None) for start in HEADLINES]
    return ", ".join(f"{describe(name).title} {format_value(name, own[name])}" for name in chosen if name is not None)


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
    shown = {name: value for name, value in record["metrics"].items() if name.startswith(SHOWN)}
    for metric, value in shown.items():
        description = describe(metric)
        lines.append(f"| {description.title} | {format_value(metric, value)} | {description.explanation} |")
    told = {key: text for key, text in record["protocol"].items() if key in shown or key not in record["metrics"]}
    lines += ["", *(f"- {key}: {text}" for key, text in told.items())]
    if card.limits:
        lines += ["", "## Limits", "", *(f"- {limit}" for limit in card.limits)]
    return "\n".join(lines)
