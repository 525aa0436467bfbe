"""The tab that looks at one picture and at a folder: attention, surprise, neighbours, and a map."""

from dataclasses import dataclass, field
from functools import partial
from html import escape
from typing import Any, NamedTuple

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from mage import images
from mage.pipeline import Mage
from mage.report.anomalies import heat_range, with_heat
from mage.report.explore import build_exploration
from mage.runs.explore import Exploration, explore
from mage.web import views
from mage.web.chooser import Page, chooser
from mage.web.components import unchecked
from mage.web.limits import whole
from mage.web.said import said
from mage.web.state import Models

NEIGHBOURS = 8


class Looked(NamedTuple):
    """What the page shows of one picture."""

    picture: Image.Image
    attention: Image.Image
    surprise: Image.Image
    neighbours: list[tuple[Image.Image, str]]
    text: str


@dataclass
class Maps:
    """Explorations of the models' folders, each made when first asked for."""

    models: Models
    _made: dict[str, Exploration | None] = field(default_factory=dict)

    def of(self, name: str) -> Exploration | None:
        """The folder of a model's real images through its eyes; None if it has none."""
        served = self.models[name]
        if name not in self._made:
            self._made[name] = (
                None
                if served.folder is None
                else explore(served.model, served.folder, limit=self.models.limits.mapped, model_name=name)
            )
        return self._made[name]


def class_attention(model: Mage, picture: Float[Tensor, "1 c H W"], block: int) -> Float[Tensor, "h w"]:
    """What the class token takes from each token in a block, mean of its heads, as multiples of an even share."""
    weights = model.attention(picture, block)[0, :, 0, 1:].mean(dim=0).cpu()
    return (weights / weights.mean()).view(*model.require_tokenizer().grid)


def look(models: Models, maps: Maps, name: str, path: str | None, block: int) -> Looked:
    """Attention, surprise and neighbours of a picture. Raises ValueError."""
    model = models[name].model
    depth = len(model.require_generator().encoder.blocks)
    block = whole(block, 1, depth, "the block")
    picture = models.take(name, path)[None]
    attention = class_attention(model, picture, block - 1)
    surprise = model.surprise(picture, draws=4)[0].cpu()
    text = (
        f"Attention of block {block} of {depth}, up to {float(attention.max()):.1f} times an even share; surprise "
        f"{float(surprise.mean()):.2f} nats per token, up to {float(surprise.max()):.2f}"
    )
    return Looked(
        views.sheet(picture),
        images.to_pil(with_heat(picture[0], attention, *heat_range([attention]))),
        images.to_pil(with_heat(picture[0], surprise, *heat_range([surprise]))),
        nearest(model, picture, maps.of(name)),
        said(text),
    )


def nearest(model: Mage, picture: Float[Tensor, "1 c H W"], found: Exploration | None) -> list[tuple[Image.Image, str]]:
    """The images of the folder whose features are most alike, by cosine; the picture's own file comes first."""
    if found is None:
        return []
    own = functional.normalize(model.features(picture).cpu().double(), dim=1)
    alike = (functional.normalize(found.features, dim=1) @ own[0]).topk(min(NEIGHBOURS, len(found.files)))
    return [
        (found.thumbnails[index], f"{found.files[index]}, {value:.2f}")
        for value, index in zip(alike.values.tolist(), alike.indices.tolist(), strict=True)
    ]


def map_page(maps: Maps, name: str) -> str:
    """The folder's page as an element of this one: it may run its own script, and reaches nothing of this page."""
    found = maps.of(name)
    if found is None:
        return said("This model comes without images: start mage serve with --folder.")
    return (
        f'<iframe class="map" title="Map of the folder" sandbox="allow-scripts" '
        f'srcdoc="{escape(build_exploration(found), quote=True)}"></iframe>'
    )


def look_tab(page: Page) -> None:
    """Lay out the tab."""
    import gradio as gr

    models = page.models
    maps = Maps(models)
    first = models[models.names[0]].model

    def blocks(model: Mage) -> dict[str, Any]:
        """Range of the slider, which needs two places at least, and its first value."""
        depth = depth_of(model)
        return {"maximum": max(2, depth), "value": depth, "visible": depth > 1}

    def picture(label: str, alt: str) -> Any:
        return gr.Image(
            label=label, alt_text=alt, interactive=False, format="png", height=300, min_width=200,
            elem_classes="picture", buttons=["fullscreen"],
        )  # fmt: skip

    source = chooser(page)
    with gr.Row():
        block = unchecked(gr.Slider)(
            1, step=1, label="Block of the encoder", scale=3, min_width=280,
            info="Whose attention is shown: what its class token looks at", **blocks(first),
        )  # fmt: skip
        start = gr.Button("Look at this picture", variant="primary", size="md", scale=1, min_width=200)
    text = gr.HTML(said("Choose a picture and press the button."))
    with gr.Row():
        shown = picture("Picture", "The chosen picture")
        attention = picture("Attention", "Where the class token of the encoder looks")
        surprise = picture("Surprise", "Tokens that the model finds unlikely given the others")
    neighbours = gr.Gallery(
        label="Nearest images by features", columns=8, height="auto", allow_preview=False, interactive=False,
        buttons=[], format="png", elem_classes="examples",
    )  # fmt: skip
    draw = gr.Button("Draw the map of all images", size="md")
    drawn = gr.HTML(said("The map places images with similar features close together."))

    event: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
    start.click(
        page.answers(partial(look, models, maps)),
        [page.model, source, block],
        [shown, attention, surprise, neighbours, text],
        api_name="look",
        **event,
    )
    draw.click(page.answers(partial(map_page, maps)), page.model, drawn, api_visibility="private", **event)

    def changed(name: str) -> list[Any]:
        return [gr.Slider(**blocks(models[name].model)), None, None, None, None, said("Press the button."), said("")]

    page.model.change(
        changed, page.model, [block, shown, attention, surprise, neighbours, text, drawn], show_progress="hidden",
        queue=False, api_visibility="private",
    )  # fmt: skip


def depth_of(model: Mage) -> int:
    """Blocks of the encoder."""
    return len(model.require_generator().encoder.blocks)
