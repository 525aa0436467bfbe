"""What a call by REST may hold: any model's classes and blocks, and paintings of a bounded size."""

import asyncio
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from mage.web.components import LAYERS, PAINTINGS, choosing, painting, read_layers
from mage.web.limits import LIMITS, Limits
from mage.web.page import build_page
from mage.web.state import Models
from tests.web.test_tabs import small_model

gradio = pytest.importorskip("gradio")


def encoded(size: tuple[int, int], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, kind)
    return buffer.getvalue()


def blob(number: int, index: str = "0", kind: str = "layer") -> SimpleNamespace:
    """A layer as a browser sends it before its call."""
    data = {"type": kind, "index": index, "id": str(number)}
    return SimpleNamespace(data=data, files=[("blob", encoded((9, 9)))])


async def built(models: Models) -> Any:
    """The page; Gradio would leave a loop of events open if none ran."""
    return build_page(models)


def test_a_call_may_name_a_class_and_a_block_of_any_model_of_the_page(tmp_path: Path) -> None:
    run = small_model(tmp_path / "run")
    models = Models((str(run), "digits"), device="cpu", precision="float32")
    try:
        page = asyncio.run(built(models))
        parts = {part.label: part for part in page.blocks.values() if getattr(part, "label", None)}
        names = {"Class": "dropdown", "Class of the new content": "dropdown", "Block of the encoder": "slider"}
        for label, value in zip(names, ("7", "7", 8), strict=True):
            assert parts[label].preprocess(value) == value
        kinds = {label: parts[label].get_block_name() for label in names}
        assert kinds == names, "the page's scripts are found by these"
        assert not list(Path(build_page.__code__.co_filename).parent.glob("*.pyi")), "Gradio writes them for subclasses"
    finally:
        models.close()


@pytest.mark.parametrize(
    ("layers", "limits", "message"),
    [
        ([encoded((9, 9))] * (LAYERS + 1), LIMITS, "has 5 layers, more than 4"),
        ([encoded((9, 9)), encoded((9, 8))], LIMITS, "different sizes"),
        ([encoded((30, 30))] * 2, Limits(pixels=1799), "have 1800 pixels, more than 1799"),
        ([b"no image"], LIMITS, "cannot read the painting"),
        ([encoded((500, 500))[:120]], LIMITS, "cannot read the painting"),
        ([encoded((9, 9), "EPS")], LIMITS, "cannot read the painting"),
    ],
)
def test_a_painting_beyond_the_limits_is_refused_before_it_is_decoded(
    layers: list[bytes], limits: Limits, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_layers(layers, limits)


def test_a_layer_that_is_too_large_a_file_is_named_without_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "layer.png"
    path.write_bytes(bytes(2_000_001))
    with pytest.raises(ValueError, match=r"^layer\.png is larger than 2 MB"):
        read_layers([str(path)], Limits(upload_megabytes=2))


def test_the_painting_area_reads_layers_alone_and_refuses_in_a_sentence(tmp_path: Path) -> None:
    editor: Any = painting(gradio.ImageEditor, LIMITS)(type="pil")
    (tmp_path / "layer.png").write_bytes(encoded((9, 9)))
    layer, background = {"path": str(tmp_path / "layer.png")}, {"path": str(tmp_path / "missing.png")}
    payload = editor.data_model(background=background, layers=[layer], composite=background)
    assert [picture.mode for picture in editor.preprocess(payload)["layers"]] == ["RGBA"]
    assert editor.preprocess(None) == {"layers": []}
    with pytest.raises(gradio.Error, match=r"^'The painting has 5 layers, more than 4\.'$"):
        editor.preprocess(editor.data_model(layers=[layer] * 5))


def test_paintings_that_wait_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    editor: Any = painting(gradio.ImageEditor, LIMITS)(type="pil")
    monkeypatch.setattr("mage.web.components.PAINTED_BYTES", 3 * len(encoded((9, 9))))
    for number in range(5):
        editor.accept_blobs(blob(number))
    assert list(editor.blob_storage) == ["2", "3", "4"]


@pytest.mark.parametrize("component", [gradio.File, gradio.UploadButton, gradio.ImageEditor])
def test_an_address_that_a_visitor_names_is_not_fetched(component: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_: Any, **__: Any) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", fetched)
    made = painting(component, LIMITS)() if component is gradio.ImageEditor else choosing(component)()
    for address in ("http://example.com/a.png", "HTTPS://example.com/a.png"):
        with pytest.raises(gradio.Error, match="fetches nothing from other addresses"):
            asyncio.run(made.async_move_resource_to_block_cache(address))


def test_what_browsers_painted_is_kept_for_a_bounded_number_of_calls() -> None:
    editor: Any = painting(gradio.ImageEditor, LIMITS)(type="pil")
    for number in range(PAINTINGS + 3):
        editor.accept_blobs(blob(number))
    assert len(editor.blob_storage) == PAINTINGS
    assert editor.preprocess(editor.data_model(id="18"))["layers"][0].size == (9, 9)
    assert editor.preprocess(editor.data_model(id="18")) == {"layers": []}, "once"
    editor.accept_blobs(blob(99, kind="background"))
    assert "99" not in editor.blob_storage
    large = SimpleNamespace(data=blob(7).data, files=[("blob", bytes(10_000_001))])
    with pytest.raises(Exception, match="larger than 10 MB"):
        editor.accept_blobs(large)
    for index in ("4", "1000000000", "-1"):
        with pytest.raises(Exception, match="at most 4 layers"):
            editor.accept_blobs(blob(0, index))
