"""Choosing a picture: an example of the model, or a file of the visitor's, which is scaled to the model's size."""

from collections.abc import Callable
from typing import Any, NamedTuple

from mage import images
from mage.web import views
from mage.web.components import choosing
from mage.web.limits import kindly
from mage.web.state import Models, Served, thumbnails

FILES = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"]


class Page(NamedTuple):
    """What every tab needs."""

    models: Models
    model: Any
    """The component with the model's name."""

    def answers(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as the page calls it: refusals are sentences, pictures are files."""
        return kindly(function, self.models.as_files)


def first_picture(models: Models, served: Served) -> str | None:
    """The first example as a file; None if there are no examples."""
    return models.keep(served.examples[0]) if served.examples else None


def example(models: Models, name: str, number: int) -> str:
    """An example as a file. Raises ValueError for one that is not there."""
    served = models[name]
    if not 0 <= number < len(served.examples):
        raise ValueError(f"{name} has {len(served.examples)} examples, none with number {number}")
    return models.keep(served.examples[number])


def own_picture(models: Models, name: str, path: str | None) -> str:
    """A visitor's file as a file at the model's size. Raises ValueError."""
    return models.keep(images.to_uint8(models.take(name, path)))


def chooser(page: Page) -> Any:
    """Lay out a chooser; the component that holds the chosen picture as a file at the model's size."""
    import gradio as gr

    models, served = page.models, page.models[page.models.names[0]]

    def pick(name: str, event: gr.SelectData) -> str:
        return example(models, name, event.index if isinstance(event.index, int) else -1)

    def changed(name: str) -> list[Any]:
        return [
            gr.Gallery(models.as_files(thumbnails(models[name])), selected_index=None),
            first_picture(models, models[name]),
        ]

    upload = choosing(gr.UploadButton)("Upload your own picture", file_types=FILES, size="sm", variant="secondary")
    gallery = gr.Gallery(
        thumbnails(served),
        label="Real images to try",
        columns=8,
        height="auto",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_classes=["examples", "choices"],
        format="png",
    )
    source = choosing(gr.File)(first_picture(models, served), visible=False, file_types=FILES, label="Picture")
    gallery.select(
        page.answers(pick),
        page.model,
        source,
        show_progress="hidden",
        queue=False,
        api_visibility="private",
    )
    upload.upload(
        page.answers(lambda name, path: own_picture(models, name, path)),
        [page.model, upload],
        source,
        show_progress="hidden",
        api_visibility="private",
    )
    page.model.change(
        changed, page.model, [gallery, source], show_progress="hidden", queue=False, api_visibility="private"
    )
    return source


def shown(models: Models, name: str, path: str | None) -> Any:
    """The chosen picture enlarged for the screen; None without one."""
    return None if path is None else views.sheet(models.take(name, path)[None])
