"""What the card of a shared model says: from a run's records, or from the card of a packaged model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mage.report.card import SHOWN
from mage.report.contents import read_contents
from mage.report.glossary import describe, finite, format_value
from mage.store import packaged
from mage.store.model_card import CardFacts, Measure


def facts_of(path: Path) -> CardFacts:
    """Measures of a run folder; title, data, measures and limits of a packaged model; nothing for other folders."""
    if packaged.is_meant(path):
        card = packaged.card_of(str(path))
        shown = {name: value for name, value in card.record["metrics"].items() if name.startswith(SHOWN)}
        return CardFacts(
            title=card.title,
            data=card.data,
            measures=measures_of(shown),
            limits=[f"Licence: {card.licence}.", *card.limits],
        )
    try:
        contents = read_contents(path)
    except ValueError:  # a model folder outside a run
        return CardFacts()
    return CardFacts(measures=measures_of(contents.part("metrics")))


def measures_of(metrics: Mapping[str, Any]) -> list[Measure]:
    """The finite numbers of a record, with titles and explanations."""
    measures = []
    for name, value in metrics.items():
        number, description = finite(value), describe(name)
        if number is not None:
            measures.append(
                Measure(name, description.title, number, format_value(name, number), description.explanation)
            )
    return measures
