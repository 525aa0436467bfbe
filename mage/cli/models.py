"""`mage models`: the models that come with the package, and their cards."""

from dataclasses import asdict

from mage.cli.console import emit
from mage.cli.options.models import Options
from mage.report.card import card_text, headline
from mage.store import packaged


def run(options: Options) -> None:
    """Print a line for each, or the card of one."""
    if options.model:
        card = packaged.card_of(options.model)
        emit(options, asdict(card), card_text(options.model, card))
        return
    values, lines = {}, []
    for name in packaged.names():
        card, size = packaged.card_of(name), packaged.weights_bytes(packaged.FOLDER / name)
        values[name] = {**asdict(card), "bytes": size}
        lines.append(f"{name}: {card.title} ({size / 1e6:.1f} MB)\n  {card.data}; {card.licence}\n  {headline(card)}")
    emit(options, values, "\n".join(lines) or "no models come with this version")
