"""The tab that hides a share of a picture's tokens and predicts them from the rest (the paper's figure 2)."""

from typing import Any, NamedTuple

from PIL import Image

from mage import images
from mage.sampling.decode import UNKNOWN
from mage.web import views
from mage.web.chooser import Page, chooser, first_picture
from mage.web.limits import real, whole
from mage.web.said import said
from mage.web.state import Models

FIRST_RATIO = 0.75


class Reconstructed(NamedTuple):
    """What the page shows."""

    original: Image.Image
    masked: Image.Image
    restored: Image.Image
    text: str


def reconstruct(models: Models, name: str, path: str | None, ratio: float, seed: int) -> Reconstructed:
    """The picture, what is left of it, and what the model makes of that. Raises ValueError."""
    model = models[name].model
    ratio = real(ratio, 0, 1, "the share that is hidden")
    seed = whole(seed, 0, models.limits.seed, "the seed")
    picture = models.take(name, path)[None].to(model.device)
    tokens = model.mask_tokens(model.encode(picture), ratio, seed)
    hidden = int((tokens == UNKNOWN).sum())
    restored = model.reconstruct(picture, mask_ratio=ratio, seed=seed).float()
    text = (
        f"{hidden} of {tokens.numel()} tokens hidden; the result differs from the original by "
        f"{float(images.psnr(picture, restored)):.1f} dB (6 dB more is half the error)"
    )
    masked = views.known_so_far(model, tokens)
    return Reconstructed(views.sheet(picture), views.sheet(masked), views.sheet(restored), said(text))


def reconstruct_tab(page: Page) -> None:
    """Lay out the tab."""
    import gradio as gr

    models, limits = page.models, page.models.limits
    first = models[models.names[0]]
    start = first_picture(models, first)
    begin = reconstruct(models, first.name, start, FIRST_RATIO, 0) if start else (None, None, None, said(""))

    def picture(value: Any, label: str, alt: str) -> Any:
        return gr.Image(
            value, label=label, alt_text=alt, interactive=False, format="png", height=330, min_width=220,
            elem_classes="picture", buttons=["fullscreen"],
        )  # fmt: skip

    source = chooser(page)
    with gr.Row():
        ratio = gr.Slider(
            0, 1, FIRST_RATIO, step=0.05, label="Share of the tokens that is hidden", scale=3, min_width=280
        )
        seed = gr.Number(0, precision=0, minimum=0, maximum=limits.seed, label="Seed", scale=1, min_width=120)
    text = gr.HTML(begin[3])
    with gr.Row():
        original = picture(begin[0], "Original", "The original picture")
        masked = picture(begin[1], "What the model sees", "The picture with its hidden tokens in grey")
        restored = picture(begin[2], "Reconstruction", "The picture that the model predicts from the rest")

    def run(*values: Any) -> Any:
        return reconstruct(models, *values) if values[1] else (None, None, None, said("Choose a picture."))

    gr.on(
        [ratio.release, ratio.change, seed.change, source.change, page.model.change],  # two may begin with one picture
        page.answers(run),
        [page.model, source, ratio, seed],
        [original, masked, restored, text],
        api_name="reconstruct",
        concurrency_id="model",
        concurrency_limit=1,
        show_progress="hidden",
        trigger_mode="always_last",
    )
