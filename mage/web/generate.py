"""The tab that generates images, step by step."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from PIL import Image

from mage.sampling.classes import NO_CLASS, WITHOUT
from mage.sampling.trace import Trace
from mage.web import views
from mage.web.chooser import Page
from mage.web.components import unchecked
from mage.web.limits import Limits, real, whole
from mage.web.said import said
from mage.web.state import Models, Served
from mage.web.steps import Step, steps_of

ANY, EACH = "any", "each in turn"
"""Words beside the names of classes."""
FIRST_COUNT = 16
GUIDANCE, TEMPERATURE = 10.0, 2.0
"""Largest values of the page."""
HINT = "Press Generate: the tokens of all images become known step by step."


class Shown(NamedTuple):
    """What the page shows after a step."""

    pictures: Image.Image
    order: Image.Image
    text: str


def class_choices(served: Served) -> list[str]:
    """What can be asked for."""
    if not served.classes:
        return [ANY]
    return [EACH, *served.classes, ANY, *({WITHOUT} - {*served.classes})]


def classes_of(served: Served, word: str, count: int) -> list[str | int] | None:
    """Classes of `count` images. Raises ValueError for a word that is no class of the model."""
    if word in (ANY, "", None):
        return None
    if word == EACH and served.classes:
        return [number % len(served.classes) for number in range(count)]
    if word == WITHOUT and served.classes and word not in served.classes:
        return [NO_CLASS] * count
    if word not in served.classes:
        raise ValueError(f"{served.name} has no class {word!r}; there are {', '.join(class_choices(served))}")
    return [served.classes.index(word)] * count


def generate(
    models: Models, name: str, word: str, guidance: float, steps: int, temperature: float, seed: int, count: int
) -> Iterator[Shown]:
    """Pictures and order after every step. Raises ValueError for what is out of its range."""
    served, limits = models[name], models.limits
    count = whole(count, 1, limits.count, "the number of images")
    steps = whole(steps, 1, limits.steps, "the number of steps")
    classes, guidance = classes_of(served, word, count), real(guidance, 0, GUIDANCE, "the guidance")
    settings: dict[str, Any] = {
        "steps": steps,
        "token_temperature": real(temperature, 0, TEMPERATURE, "the temperature"),
        "guidance": guidance if classes is not None or served.model.notes.get("class_shares") else 0.0,
        "seed": whole(seed, 0, limits.seed, "the seed"),
        "classes": classes,
    }
    model, trace, cell = served.model, Trace(), served.model.token_size
    work = steps_of(lambda on_step: model.generate_tokens(count, on_step=on_step, **settings), seconds=limits.seconds)
    for state in work:
        if isinstance(state, Step):
            number, known_in = state.number, trace.update(state.number, state.tokens)
            text = f"{number} of {steps} steps" if number else "Every token is unknown"
            pictures = views.known_so_far(model, state.tokens)
        else:
            known_in, pictures = trace.finish(state), model.decode_tokens(state).float()
            text = f"{count} image{'' if count == 1 else 's'} of {state[0].numel()} tokens, in {steps} steps"
        yield Shown(views.sheet(pictures), views.sheet(views.order(known_in, steps, cell)), said(text))


def defaults(served: Served, limits: Limits) -> tuple[float, int, float]:
    """Guidance, steps and temperature of the model's own sampler, as far as the page goes."""
    own = served.model.sampling
    return min(own.guidance, GUIDANCE), min(own.steps, limits.steps), min(own.token_temperature, TEMPERATURE)


def generate_tab(page: Page) -> None:
    """Lay out the tab."""
    import gradio as gr

    models, limits = page.models, page.models.limits
    first = models[models.names[0]]
    own_guidance, own_steps, own_temperature = defaults(first, limits)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            word = unchecked(gr.Dropdown)(
                class_choices(first),
                value=class_choices(first)[0],
                label="Class",
                info="What is drawn, for a model that knows classes",
            )
            count = gr.Slider(1, limits.count, FIRST_COUNT, step=1, label="Images")
            steps = gr.Slider(
                1, limits.steps, own_steps, step=1, label="Steps", info="More steps: slower, usually better"
            )
            guidance = gr.Slider(
                0,
                GUIDANCE,
                own_guidance,
                step=0.1,
                label="Guidance",
                info="Larger: closer to the class, less variety",
                visible=bool(first.classes),
            )
            temperature = gr.Slider(
                0,
                TEMPERATURE,
                own_temperature,
                step=0.05,
                label="Temperature",
                info="Larger: more variety, more mistakes",
            )
            seed = gr.Number(
                0, precision=0, minimum=0, maximum=limits.seed, label="Seed", info="The same seed, the same images"
            )
            start = gr.Button("Generate", variant="primary", size="md")
            with gr.Row():
                again = gr.Button("Next seed", size="md", min_width=100)
                stop = gr.Button("Stop", size="md", min_width=100)
        with gr.Column(scale=5, min_width=300):
            text = gr.HTML(said(HINT))
            with gr.Row():
                pictures = gr.Image(
                    views.unknown(first.model, FIRST_COUNT),
                    label="Images", alt_text="The generated images", interactive=False, format="png", height=460,
                    elem_classes="picture", buttons=["download", "fullscreen"],
                )  # fmt: skip
                order = gr.Image(
                    views.unknown(first.model, FIRST_COUNT),
                    label="Order of the tokens: dark first, light last", interactive=False, format="png", height=460,
                    alt_text="The step in which each token became known, as a colour", elem_classes="picture",
                    buttons=["download", "fullscreen"],
                )  # fmt: skip

    inputs = [page.model, word, guidance, steps, temperature, seed, count]
    outputs = [pictures, order, text]

    def run(*values: Any) -> Iterator[Shown]:
        yield from generate(models, *values)

    event: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress": "hidden"}
    started = start.click(page.answers(run), inputs, outputs, api_name="generate", **event)
    next_seed = again.click(
        lambda number: (int(number or 0) + 1) % limits.seed, seed, seed, queue=False, show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip
    followed = next_seed.then(page.answers(run), inputs, outputs, api_visibility="private", **event)
    stop.click(None, cancels=[started, followed], api_visibility="private")

    def changed(name: str) -> list[Any]:
        served = models[name]
        choices, (own_guidance, own_steps, own_temperature) = class_choices(served), defaults(served, limits)
        return [
            gr.Dropdown(choices, value=choices[0]),
            gr.Slider(value=own_guidance, visible=bool(served.classes)),
            own_steps,
            own_temperature,
            *[views.unknown(served.model, FIRST_COUNT)] * 2,
            said(HINT),
        ]

    page.model.change(
        page.answers(changed), page.model, [word, guidance, steps, temperature, pictures, order, text],
        show_progress="hidden", queue=False, api_visibility="private",
    )  # fmt: skip
