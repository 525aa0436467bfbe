"""The tab that redraws a part of a picture: inpaint, outpaint, uncrop, vary, change the class."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from mage import images
from mage.sampling.decode import UNKNOWN
from mage.sampling.edit import token_mask
from mage.web import views
from mage.web.chooser import Page, chooser, first_picture, shown
from mage.web.components import painting, unchecked
from mage.web.generate import ANY, classes_of, defaults
from mage.web.limits import real, whole
from mage.web.said import said
from mage.web.state import Models, Served
from mage.web.steps import Step, steps_of

TASKS = ("Inpaint what is painted", "Inpaint the middle", "Outpaint one side", "Uncrop", "Vary")
PAINTED, MIDDLE, SIDE, UNCROP, VARY = TASKS
SIDES = ("left", "right", "top", "bottom")
VARIANTS = 4
BRUSH = "#e8590c"
NO_WEBGL = said("This browser cannot paint here: it has no WebGL. The other tasks need no painting.")
"""Shown only where it is true, see `page.LOOK_FOR_WEBGL`."""
HINT = "Paint or choose a task, then press Edit: four results appear."


class Edited(NamedTuple):
    """What the page shows."""

    touched: Image.Image
    results: Image.Image
    text: str


def painted_mask(painted: dict[str, Any] | None, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """What was painted, at the model's size. Raises ValueError if nothing was."""
    layers = [layer for layer in (painted or {}).get("layers") or [] if layer is not None]
    marks = [torch.from_numpy(_alpha(layer)) > 0 for layer in layers]
    mask = marks[0] if marks else torch.zeros(1, 1, dtype=torch.bool)
    for mark in marks[1:]:
        mask = mask | mark
    if not mask.any():
        raise ValueError("nothing is painted: paint over what is to be redrawn, or choose another task")
    return images.fit_mask(mask, size)


def _alpha(layer: Image.Image) -> Any:
    import numpy as np

    return np.array(layer.convert("RGBA").getchannel("A"))


def region(task: str, side: str, painted: dict[str, Any] | None, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """The pixels that a task redraws. Raises ValueError for an unknown task or side."""
    height, width = size
    middle = torch.zeros(size, dtype=torch.bool)
    middle[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    if task == PAINTED:
        return painted_mask(painted, size)
    if task == MIDDLE:
        return middle
    if task == UNCROP:
        return ~middle
    if task != SIDE:
        raise ValueError(f"there is no task {task!r}; there are {', '.join(TASKS)}")
    if side not in SIDES:
        raise ValueError(f"there is no side {side!r}; there are {', '.join(SIDES)}")
    half = torch.zeros(size, dtype=torch.bool)
    places = {
        "left": (slice(None), slice(0, width // 2)),
        "right": (slice(None), slice(width // 2, None)),
        "top": (slice(0, height // 2), slice(None)),
        "bottom": (slice(height // 2, None), slice(None)),
    }
    half[places[side]] = True
    return half


def edit(
    models: Models,
    name: str,
    path: str | None,
    painted: dict[str, Any] | None,
    task: str,
    side: str,
    strength: float,
    word: str,
    steps: int,
    seed: int,
) -> Iterator[Edited]:
    """What is redrawn, and four results after every step. Raises ValueError."""
    served, limits = models[name], models.limits
    model, cell = served.model, served.model.token_size
    picture = models.take(name, path).to(model.device)
    seed = whole(seed, 0, limits.seed, "the seed")
    settings: dict[str, Any] = {
        "steps": whole(steps, 1, limits.steps, "the number of steps"),
        "classes": classes_of(served, word, VARIANTS),
        "seed": seed,
    }
    four = picture.expand(VARIANTS, -1, -1, -1)
    if task == VARY:
        share = real(strength, 0, 1, "the strength")
        redrawn = model.mask_tokens(model.encode(picture[None]), share, seed)[0] == UNKNOWN
        text = f"{share:.0%} of the tokens are redrawn, others in each variant"
    else:
        pixels = region(task, side, painted, model.image_size)
        redrawn = token_mask(pixels[None], model.require_tokenizer().grid)[0]
        text = f"{int(redrawn.sum())} of {redrawn.numel()} tokens are redrawn: those with a marked pixel"

    def work(on_step: Any) -> Float[Tensor, "n c H W"]:
        if task == VARY:
            return model.variations(four, strength=share, on_step=on_step, **settings)
        return model.edit(four, pixels, on_step=on_step, **settings)

    marked = views.touched(picture.cpu(), redrawn.cpu(), cell)
    for state in steps_of(work, seconds=limits.seconds):
        so_far = views.known_so_far(model, state.tokens) if isinstance(state, Step) else state.float()
        yield Edited(marked, views.sheet(so_far), said(text))


def edit_tab(page: Page) -> None:
    """Lay out the tab."""
    import gradio as gr

    models, limits = page.models, page.models.limits
    first = models[models.names[0]]

    def choices(served: Served) -> list[str]:
        return [ANY, *served.classes]

    def background(name: str, path: str | None) -> Any:
        picture = shown(models, name, path)
        return None if picture is None else {"background": picture.convert("RGB"), "layers": [], "composite": None}

    with gr.Row(elem_classes="editing"):
        with gr.Column(scale=2, min_width=280):
            task = gr.Radio(list(TASKS), value=PAINTED, label="Task")
            side = gr.Dropdown(list(SIDES), value="right", label="Side that is redrawn", visible=False)
            strength = gr.Slider(0, 1, 0.5, step=0.05, label="Share that is redrawn", visible=False)
            word = unchecked(gr.Dropdown)(
                choices(first), value=ANY, label="Class of the new content", visible=bool(first.classes),
                info="any: what fits the rest; a class changes what is there",
            )  # fmt: skip
            with gr.Row():
                start = gr.Button("Edit", variant="primary", size="md", min_width=110)
                stop = gr.Button("Stop", size="md", min_width=110)
            steps = gr.Slider(1, limits.steps, defaults(first, limits)[1], step=1, label="Steps")
            seed = gr.Number(0, precision=0, minimum=0, maximum=limits.seed, label="Seed")
        with gr.Column(scale=3, min_width=300):
            editor = painting(gr.ImageEditor, limits)(
                background(first.name, first_picture(models, first)),
                type="pil",
                label="Paint here",
                sources=[],
                transforms=[],
                layers=False,
                canvas_size=(448, 448),
                brush=gr.Brush(default_size=48, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"),
                eraser=gr.Eraser(default_size=48),
                height=420,
                format="png",
                buttons=[],
                elem_classes="painting",
            )
            gr.HTML(NO_WEBGL, elem_classes="without-webgl")
            source = chooser(page)
        with gr.Column(scale=3, min_width=300):
            text = gr.HTML(said(HINT))
            results = gr.Image(
                label="Results", alt_text="Four results of the edit", interactive=False, format="png", height=360,
                elem_classes="picture", buttons=["download", "fullscreen"],
            )  # fmt: skip
            touched = gr.Image(
                label="Tokens that are redrawn", alt_text="The picture with the redrawn tokens in colour",
                interactive=False, format="png", height=300, elem_classes=["picture", "lines"], buttons=["fullscreen"],
            )  # fmt: skip

    source.change(
        page.answers(background), [page.model, source], editor, show_progress="hidden", queue=False,
        api_visibility="private",
    )  # fmt: skip
    task.change(
        lambda chosen: [gr.Dropdown(visible=chosen == SIDE), gr.Slider(visible=chosen == VARY)], task,
        [side, strength], show_progress="hidden", queue=False, api_visibility="private",
    )  # fmt: skip

    def run(*values: Any) -> Iterator[Edited]:
        yield from edit(models, *values)

    started = start.click(
        page.answers(run),
        [page.model, source, editor, task, side, strength, word, steps, seed],
        [touched, results, text],
        api_name="edit",
        concurrency_id="model",
        concurrency_limit=1,
        show_progress="hidden",
    )
    stop.click(None, cancels=[started], api_visibility="private")

    def changed(name: str) -> list[Any]:
        served = models[name]
        word = gr.Dropdown(choices(served), value=ANY, visible=bool(served.classes))
        return [word, defaults(served, limits)[1], None, None, said(HINT)]

    page.model.change(
        changed,
        page.model,
        [word, steps, results, touched, text],
        show_progress="hidden",
        queue=False,
        api_visibility="private",
    )
