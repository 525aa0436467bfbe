"""Gradio's components, where this page and not Gradio judges what a visitor sends by REST."""

import io
from abc import ABCMeta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from mage.web.limits import LIMITS, Limits, check_file, kindly, refusal

LAYERS = 4
"""Most layers of a painting; the page's has one."""
PAINTED_BYTES = 100_000_000
"""Bytes of all paintings that wait; the oldest are forgotten."""
PAINTINGS = 2 * LIMITS.waiting
"""Most paintings that wait for their call, and of calls that are refused; the oldest are forgotten."""
FORMATS = ("PNG", "WEBP")
"""What a layer may be written as."""


def unchecked(component: Any) -> Any:
    """A subclass of a component that passes on what it gets, for a function that checks it.

    Gradio's own knows the choices and the range of the first model only, and refuses those of the others by REST.
    """
    return _subclass(component, preprocess=lambda self, payload: payload)


def painting(component: Any, limits: Limits) -> Any:
    """A subclass of Gradio's image editor that reads the painted layers alone, within the limits.

    Gradio's own opens any number of layers of any size, the background, and the result of both.
    """

    def preprocess(self: Any, payload: Any) -> dict[str, list[Image.Image]]:
        painted = payload
        if payload is not None and payload.id is not None:  # what a browser painted was sent before its call
            painted = self.blob_storage.pop(payload.id, None)
        layers = painted.layers if painted is not None else []
        sources = [getattr(layer, "path", layer) for layer in layers if layer is not None]
        return {"layers": kindly(read_layers)(sources, limits)}

    def accept_blobs(self: Any, data: Any) -> None:
        from starlette.exceptions import HTTPException

        if data.data["type"] != "layer":
            return
        index = str(data.data["index"])
        if not index.isdecimal() or int(index) >= LAYERS:
            raise HTTPException(413, f"a painting has at most {LAYERS} layers")
        if len(data.files[0][1]) > limits.upload_megabytes * 1_000_000:
            raise HTTPException(413, f"the painting is larger than {limits.upload_megabytes} MB")
        component.accept_blobs(self, data)
        while len(self.blob_storage) > PAINTINGS or _bytes_of(self.blob_storage) > PAINTED_BYTES:
            self.blob_storage.pop(next(iter(self.blob_storage)))

    accept_blobs._is_server_fn = True  # type: ignore[attr-defined]  # what gradio.components.base.server does
    return _subclass(component, preprocess=preprocess, accept_blobs=accept_blobs, **_local_files(component))


def _bytes_of(paintings: dict[str, Any]) -> int:
    return sum(len(layer) for painted in paintings.values() for layer in painted.layers if layer is not None)


def choosing(component: Any) -> Any:
    """A subclass of a component for files, which takes those alone that were uploaded to this server.

    Gradio's own would fetch an address that a visitor names.
    """
    return _subclass(component, **_local_files(component))


def _local_files(component: Any) -> dict[str, Any]:
    async def move(self: Any, path: str | Path | None) -> Any:
        if urlsplit(str(path or "")).scheme in ("http", "https"):
            raise refusal("this page fetches nothing from other addresses: upload the picture itself")
        return await component.async_move_resource_to_block_cache(self, path)

    return {"async_move_resource_to_block_cache": move}


def read_layers(sources: list[str] | list[bytes], limits: Limits = LIMITS) -> list[Image.Image]:
    """Layers of a painting, files or their content, as RGBA.

    Raises ValueError if they are too many, too large together, of unequal sizes, or no images; only then they are read.
    """
    if len(sources) > LAYERS:
        raise ValueError(f"the painting has {len(sources)} layers, more than {LAYERS}")
    layers = [_opened(source, limits) for source in sources]
    if len({layer.size for layer in layers}) > 1:
        raise ValueError("the layers of the painting have different sizes")
    pixels = sum(layer.width * layer.height for layer in layers)
    if pixels > limits.pixels:
        raise ValueError(f"the layers of the painting have {pixels} pixels, more than {limits.pixels}")
    try:
        return [layer.convert("RGBA") for layer in layers]
    except Exception as error:  # decoders can raise any exception for damaged files
        raise ValueError(f"cannot read the painting ({type(error).__name__})") from None


def _opened(source: str | bytes, limits: Limits) -> Image.Image:
    """A layer of which only the header is read."""
    if isinstance(source, str):
        check_file(Path(source), limits)
        source = Path(source).read_bytes()
    try:
        return Image.open(io.BytesIO(source), formats=FORMATS)
    except Exception as error:
        raise ValueError(f"cannot read the painting ({type(error).__name__})") from None


def _subclass(component: Any, **methods: Any) -> Any:
    """A subclass of the same name, by which the page finds its script.

    A `class` statement would have Gradio write a .pyi file beside this one.
    """
    return ABCMeta.__new__(type(component), component.__name__, (component,), methods)
