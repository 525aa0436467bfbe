"""The tab that says what the model is: card, sizes, sampler, and the report of its run."""

from dataclasses import asdict
from html import escape
from pathlib import Path

from mage.nn.grids import written
from mage.report.card import card_text
from mage.sampling.settings import SamplingConfig
from mage.settings import field_docs
from mage.web.chooser import Page
from mage.web.state import Served

REPORT = "report.html"
MOST_BYTES = 50_000_000
"""Of a report that is shown."""


def facts(served: Served) -> str:
    """Sizes of the images and the networks, as Markdown."""
    model = served.model
    network, tokenizer = model.require_generator(), model.require_tokenizer()
    height, width = model.image_size
    count = sum(parameter.numel() for parameter in network.parameters())
    lines = [
        f"## {served.name}",
        "",
        f"- **Images**: {width} x {height} pixels, {'grey' if model.channels == 1 else 'colour'}",
        f"- **Tokens**: {written(tokenizer.grid)}, each one of {tokenizer.num_codes:,} codes",
        f"- **Transformer**: {count / 1e6:.1f} M parameters, encoder of {network.config.depth} blocks, decoder of "
        f"{network.config.decoder_depth}",
        f"- **Classes**: {', '.join(served.classes) or 'none'}",
        f"- **Runs** in {model.precision} on {model.device}",
    ]
    return "\n".join(lines)


def sampler_table(served: Served) -> str:
    """The settings that the model's sampler has unless the page changes them, as Markdown."""
    meanings = field_docs(SamplingConfig)
    lines = ["| setting | value | meaning |", "|---|---|---|"]
    lines += [
        f"| {name} | {'-' if value is None else value} | {meanings.get(name, '')} |"
        for name, value in asdict(served.model.sampling).items()
    ]
    return "\n".join(lines)


def report_page(served: Served) -> str:
    """The report in the model's run folder, without scripts; empty if there is none."""
    path = Path(served.source) / REPORT
    if served.card is not None or not path.is_file() or path.stat().st_size > MOST_BYTES:
        return ""
    text = escape(path.read_text(encoding="utf-8", errors="replace"), quote=True)
    return f'<iframe class="map" title="Report of the run" sandbox="" srcdoc="{text}"></iframe>'


def card_of(served: Served) -> str:
    """The model's card as Markdown; a sentence for a model without one."""
    return "This model has no card." if served.card is None else card_text(served.name, served.card)


def model_tab(page: Page) -> None:
    """Lay out the tab."""
    import gradio as gr

    models = page.models
    first = models[models.names[0]]
    own = gr.Markdown(facts(first), elem_classes="card")
    with gr.Accordion("Settings of the sampler", open=False):
        sampler = gr.Markdown(sampler_table(first), elem_classes="card")
    card = gr.Markdown(card_of(first), elem_classes="card")
    report = gr.HTML(report_page(first))

    def changed(name: str) -> list[str]:
        return [describe(models[name]) for describe in (facts, sampler_table, card_of, report_page)]

    page.model.change(
        changed, page.model,
        [own, sampler, card, report], show_progress="hidden", queue=False, api_visibility="private",
    )  # fmt: skip
