"""`mage push`: upload a model to the Hugging Face Hub."""

from dataclasses import replace

import mage
from mage.cli.console import emit
from mage.cli.options.push import Options
from mage.report.shared_card import facts_of
from mage.store import folder as store
from mage.store import hub
from mage.store.hub_names import name_to_write
from mage.store.model_card import card_of


def run(options: Options) -> None:
    """Upload the files of a model folder with a new card, and print the address."""
    shared = name_to_write(options.to, options.revision)
    folder = store.find_folder(options.model)
    model = mage.load(folder, precision=options.precision, device=options.device)
    facts = facts_of(options.model)
    facts = replace(facts, title=options.title or facts.title, license=options.license)
    with hub.copied(folder) as copy:
        hub.prepare(copy, card_of(shared.model, model.parts, facts, loaded_by=str(shared)))
        address = hub.push(copy, shared, private=options.private or None, commit_message=options.message)
    values = {"model": shared.model, "revision": shared.revision, "commit": address}
    emit(options, values, f'{address}\nload it with mage.load("{shared}"), or --model {shared}')
