"""The page: a choice of models above five tabs."""

from typing import Any

from mage.web.chooser import Page
from mage.web.edit import edit_tab
from mage.web.generate import generate_tab
from mage.web.guard import KEPT_SECONDS
from mage.web.look import look_tab
from mage.web.model_card import model_tab
from mage.web.reconstruct import reconstruct_tab
from mage.web.state import Models

TABS = {
    "Generate": generate_tab,
    "Edit": edit_tab,
    "Reconstruct": reconstruct_tab,
    "Look": look_tab,
    "Model": model_tab,
}
HEADING = '<div class="top"><h1>MAGE</h1><p>Masked token models that generate, edit and describe images.</p></div>'
LOOK_FOR_WEBGL = """() => {
    const canvas = document.createElement("canvas");
    if (canvas.getContext("webgl2") || canvas.getContext("webgl")) return;
    const style = document.createElement("style");
    style.textContent = "body .without-webgl { display: block !important; } .painting { display: none !important; }";
    document.head.append(style);
}"""
"""Painting needs WebGL; without it the area stays empty."""


def build_page(models: Models) -> Any:
    """The page as a Gradio application."""
    import gradio as gr

    with gr.Blocks(title="MAGE", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        with gr.Row(elem_classes="head"):
            with gr.Column(scale=3, min_width=280):
                gr.HTML(HEADING)
            model = gr.Dropdown(
                models.names, value=models.names[0], label="Model", filterable=False, scale=1, min_width=220
            )
        with gr.Tabs():
            for name, lay_out in TABS.items():
                with gr.Tab(name):
                    lay_out(Page(models, model))
        blocks.load(None, js=LOOK_FOR_WEBGL, api_visibility="private")
    blocks.queue(max_size=models.limits.waiting, default_concurrency_limit=1)
    return blocks
