"""What each tab computes, without a browser: equal to the library's methods, and bounded."""

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mage
from mage import images
from mage.models import MAGEConfig
from mage.sampling.classes import WITHOUT
from mage.sampling.edit import token_mask
from mage.tokenizers import QuantizerConfig, VQGANConfig
from mage.web import model_card, views
from mage.web.chooser import example, own_picture
from mage.web.edit import MIDDLE, PAINTED, SIDE, UNCROP, VARY, edit, painted_mask, region
from mage.web.generate import ANY, EACH, class_choices, classes_of, defaults, generate
from mage.web.limits import kindly
from mage.web.look import Maps, class_attention, look, map_page, nearest
from mage.web.reconstruct import reconstruct
from mage.web.state import Models
from tests.report.test_explore import OnApple


def same(first: Image.Image, second: Image.Image) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


def test_generate_shows_every_step_and_ends_with_the_librarys_images(models: Models) -> None:
    model = models["digits"].model
    shown = list(generate(models, "digits", "7", 2.0, 4, 1.0, 3, 2))
    assert len(shown) == 5
    tokens = model.generate_tokens(2, classes=[7, 7], guidance=2.0, steps=4, token_temperature=1.0, seed=3)
    assert same(shown[-1].pictures, views.sheet(model.decode_tokens(tokens)))
    grey = [int((np.asarray(state.pictures) == 128).sum()) for state in shown]
    assert grey[0] > grey[1] > grey[-1]
    assert "3 of 4 steps" in shown[3].text
    assert "2 images of 49 tokens" in shown[-1].text


def test_guidance_counts_where_classes_are_drawn_as_the_library_draws_them(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["digits"].model
    monkeypatch.setitem(model.notes, "class_shares", [0.1] * 10)
    shown = list(generate(models, "digits", ANY, 3.0, 4, 1.0, 3, 2))
    tokens = model.generate_tokens(2, guidance=3.0, steps=4, token_temperature=1.0, seed=3)
    assert same(shown[-1].pictures, views.sheet(model.decode_tokens(tokens)))
    assert not torch.equal(tokens, model.generate_tokens(2, guidance=0.0, steps=4, token_temperature=1.0, seed=3))
    shown = list(generate(models, "digits", WITHOUT, 3.0, 4, 1.0, 3, 2))
    tokens = model.generate_tokens(2, classes=-1, steps=4, token_temperature=1.0, seed=3)
    assert same(shown[-1].pictures, views.sheet(model.decode_tokens(tokens)))


def test_classes_are_drawn_in_turn_one_or_none(models: Models) -> None:
    served = models["digits"]
    assert class_choices(served) == [EACH, *"0123456789", ANY, WITHOUT]
    assert classes_of(served, WITHOUT, 2) == [-1, -1]
    assert classes_of(served, EACH, 12) == [*range(10), 0, 1]
    assert classes_of(served, "4", 2) == [4, 4]
    assert classes_of(served, ANY, 2) is None
    with pytest.raises(ValueError, match="no class 'ten'"):
        classes_of(served, "ten", 2)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, "imagenet", "there is no model 'imagenet' here; there are digits"),
        (1, "ship", "no class 'ship'"),
        (2, 11, "the guidance must lie"),
        (3, 0, "the number of steps must lie"),
        (3, 10**9, "the number of steps must lie"),
        (4, -1, "the temperature must lie"),
        (5, 2**63, "the seed must lie"),
        (6, 10**6, "the number of images must lie"),
    ],
)
def test_what_is_out_of_bounds_is_refused_before_any_work(models: Models, place: int, value: Any, message: str) -> None:
    arguments: list[Any] = ["digits", ANY, 0, 2, 1, 0, 1]
    arguments[place] = value
    with pytest.raises(ValueError, match=message):
        next(generate(models, *arguments))


@pytest.mark.parametrize("task", [MIDDLE, UNCROP, SIDE])
def test_an_edit_is_the_librarys_of_the_tasks_region(models: Models, picture: str, task: str) -> None:
    model = models["digits"].model
    states = list(edit(models, "digits", picture, None, task, "top", 0.5, "3", 3, 1))
    assert len(states) == 4
    pixels = region(task, "top", None, (28, 28))
    four = models.take("digits", picture).expand(4, -1, -1, -1)
    expected = model.edit(four, pixels, classes=[3] * 4, steps=3, seed=1)
    assert same(states[-1].results, views.sheet(expected))
    count = int(token_mask(pixels[None], (7, 7)).sum())
    assert f"{count} of 49 tokens" in states[-1].text
    assert not same(states[0].results, states[-1].results)


def test_variations_redraw_the_given_share(models: Models, picture: str) -> None:
    model = models["digits"].model
    *_, last = edit(models, "digits", picture, None, VARY, "", 0.4, ANY, 3, 5)
    four = models.take("digits", picture).expand(4, -1, -1, -1)
    assert same(last.results, views.sheet(model.variations(four, strength=0.4, steps=3, seed=5)))
    assert "40%" in last.text


def test_what_is_painted_on_the_enlarged_picture_marks_the_pixels_below(models: Models, picture: str) -> None:
    layer = Image.new("RGBA", (504, 504))
    layer.paste((232, 89, 12, 255), (18 * 4, 18 * 8, 18 * 5, 18 * 9))  # column 4, row 8
    mask = painted_mask({"background": None, "layers": [layer], "composite": None}, (28, 28))
    assert mask.nonzero().tolist() == [[8, 4]]
    *_, last = edit(models, "digits", picture, {"layers": [layer]}, PAINTED, "", 0, ANY, 2, 0)
    assert "1 of 49 tokens" in last.text


@pytest.mark.parametrize("painted", [None, {}, {"layers": []}, {"layers": [Image.new("RGBA", (9, 9))]}])
def test_nothing_painted_is_told_what_to_do(painted: Any) -> None:
    with pytest.raises(ValueError, match="nothing is painted: paint over"):
        painted_mask(painted, (28, 28))


@pytest.mark.parametrize(("task", "side"), [("Erase", "left"), (SIDE, "middle")])
def test_a_task_or_side_that_is_not_there_is_refused(task: str, side: str) -> None:
    with pytest.raises(ValueError, match="there is no"):
        region(task, side, None, (28, 28))


def test_sides_are_halves_and_uncrop_is_all_but_the_middle() -> None:
    left, right, top, bottom = (
        region(SIDE, side, None, (8, 12)).nonzero().float().mean(dim=0).tolist()
        for side in ("left", "right", "top", "bottom")
    )
    assert (left, right, top, bottom) == ([3.5, 2.5], [3.5, 8.5], [1.5, 5.5], [5.5, 5.5])
    assert torch.equal(region(MIDDLE, "", None, (8, 12)), ~region(UNCROP, "", None, (8, 12)))


def test_a_reconstruction_is_the_librarys_and_its_hidden_tokens_are_grey(models: Models, picture: str) -> None:
    model, original = models["digits"].model, models.take("digits", picture)[None]
    result = reconstruct(models, "digits", picture, 0.5, 2)
    assert same(result.restored, views.sheet(model.reconstruct(original, mask_ratio=0.5, seed=2)))
    assert "25 of 49 tokens hidden" in result.text
    assert (np.asarray(result.masked) == 128).mean() == pytest.approx(25 / 49, abs=0.02)
    with pytest.raises(ValueError, match="the share that is hidden must lie"):
        reconstruct(models, "digits", picture, 1.5, 2)


def test_a_look_finds_the_picture_itself_first_among_its_neighbours(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, served = Maps(models), models["digits"]
    found = maps.of("digits")
    assert found is not None
    own = images.to_float(served.examples[7])
    path = models.keep(images.to_uint8(own))
    result = look(models, maps, "digits", path, 8)
    file, alike = result.neighbours[0][1].split(", ")
    assert float(alike) == 1.0
    assert served.folder is not None
    assert torch.equal(images.load_image(served.folder / file, 1), served.examples[7])
    assert len(result.neighbours) == 8
    features = served.model.features
    monkeypatch.setattr(served.model, "features", lambda *given: features(*given).as_subclass(OnApple))
    assert nearest(served.model, own[None], found)[0][1] == result.neighbours[0][1], "a device without float64"
    monkeypatch.undo()
    assert maps.of("digits") is found, "the folder is described once"
    attention = class_attention(served.model, own[None], 7)
    assert attention.shape == (7, 7)
    assert float(attention.mean()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="the block must lie from 1 to 8"):
        look(models, maps, "digits", path, 9)


def test_the_map_is_a_page_of_its_own_that_cannot_reach_this_one(models: Models) -> None:
    text = map_page(Maps(models), "digits")
    assert text.startswith("<iframe")
    assert 'sandbox="allow-scripts"' in text, "without allow-same-origin"
    assert text.count('"') == 8, "nothing of the page ends its attribute"


def test_a_model_is_described_by_its_card_and_its_sampler(models: Models) -> None:
    served = models["digits"]
    assert "28 x 28 pixels, grey" in model_card.facts(served)
    assert "| steps | 20 |" in model_card.sampler_table(served)
    assert model_card.card_of(served).startswith("# digits: ")
    assert model_card.report_page(served) == ""


def small_model(folder: Path, **changes: Any) -> Path:
    quantizer = QuantizerConfig(kind="normalized", num_codes=32)
    tokenizer = VQGANConfig(
        image_size=(16, 16), channels=changes.pop("channels", 3), width=8, multipliers=(1, 2), patch_size=2, blocks=1,
        decoder_blocks=1, middle_blocks=0, code_width=4, quantizer=quantizer,
    )  # fmt: skip
    sizes = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return mage.build(sizes, tokenizer=tokenizer, precision="float32", **changes).save(folder)


def test_a_run_folder_shows_its_report_without_scripts_and_a_model_without_classes_is_asked_for_none(
    tmp_path: Path,
) -> None:
    run = small_model(tmp_path / "run")
    (run / "report.html").write_text('<h1 class="a">Run</h1><script>alert(1)</script>')
    models = Models((str(run),), device="cpu", precision="float32")
    try:
        served = models["run"]
        report = model_card.report_page(served)
        assert 'sandbox=""' in report
        assert "<script" not in report
        assert class_choices(served) == [ANY]
        assert served.examples == ()
        *_, last = generate(models, "run", ANY, 5.0, 2, 1.0, 0, 1)
        assert "1 image of 16 tokens" in last.text
        assert "--folder" in map_page(Maps(models), "run")
        with pytest.raises(ValueError, match="choose one of the examples, or upload"):
            reconstruct(models, "run", None, 0.5, 0)
    finally:
        models.close()


def test_a_folder_gives_examples_neighbours_and_a_map(tmp_path: Path) -> None:
    run = small_model(tmp_path / "run")
    for number in range(20):
        pixels = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(number))
        images.save_png(tmp_path / "photos" / f"{number:02}.png", pixels)
    (tmp_path / "photos" / "17.png").write_bytes(b"half a")
    models = Models((str(run),), folder=tmp_path / "photos", device="cpu", precision="float32")
    try:
        assert [picture.shape for picture in models["run"].examples] == [(3, 16, 16)] * 15, "one cannot be read"
        path = example(models, "run", 2)
        result = look(models, Maps(models), "run", path, 1)
        assert result.neighbours[0][1] == "02.png, 1.00"
        with pytest.raises(ValueError, match="none with number 16"):
            example(models, "run", 16)
    finally:
        models.close()


def test_models_of_one_name_are_told_apart_and_what_cannot_generate_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = small_model(tmp_path / "a" / "run"), small_model(tmp_path / "b" / "run", seed=1)
    models = Models((str(first), str(second)), device="cpu", precision="float32")
    assert models.names == [str(first), str(second)]
    models.close()
    monkeypatch.chdir(first)
    models = Models((".",), device="cpu", precision="float32")
    assert models.names == ["run"]
    models.close()
    model = mage.load(first, device="cpu")
    mage.Mage(model.tokenizer, None).save(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="tokenizer cannot be shown: this is a tokenizer without a transformer"):
        Models((str(tmp_path / "tokenizer"),))
    with pytest.raises(ValueError, match="a browser shows 1 or 3 channels, not 4"):
        Models((str(small_model(tmp_path / "bands", channels=4)),))


def test_an_upload_is_scaled_to_the_model_and_the_chosen_pictures_do_not_fill_the_disk(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.save_png(tmp_path / "photo.png", torch.rand(3, 60, 90))
    assert images.load_image(own_picture(models, "digits", str(tmp_path / "photo.png")), 1).shape == (1, 28, 28)
    monkeypatch.setattr("mage.web.state.KEPT", 3)
    kept = [models.keep(torch.full((1, 28, 28), level, dtype=torch.uint8)) for level in range(6)]
    assert len(list(models.chosen.iterdir())) == 3
    assert Path(kept[-1]).exists()
    inside, most, written = set[int](), list[int](), tempfile.NamedTemporaryFile

    @contextlib.contextmanager
    def slowly(**given: Any) -> Iterator[Any]:
        inside.add(threading.get_ident())
        time.sleep(0.01)
        most.append(len(inside))
        inside.remove(threading.get_ident())
        with written(**given) as file:
            yield file

    monkeypatch.setattr("mage.web.state.tempfile.NamedTemporaryFile", slowly)
    several = [torch.full((1, 28, 28), level, dtype=torch.uint8) for level in range(6, 18)]
    with ThreadPoolExecutor(6) as visitors:
        list(visitors.map(models.keep, several))
    assert most == [1] * 12, "one visitor after the other"
    assert len(list(models.chosen.iterdir())) == 3


def test_chosen_pictures_are_deleted_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    models = Models(("digits",), device="cpu", precision="float32")
    monkeypatch.setattr("mage.web.state.time.monotonic", lambda: now[0])
    try:
        first, again, last = (models["digits"].examples[number] for number in range(3))
        old, asked = Path(models.keep(first)), Path(models.keep(again))
        now[0] = 2000.0
        assert Path(models.keep(again)) == asked
        now[0] = 4000.0
        models.keep(last)
        assert not old.exists()
        assert asked.exists(), "it was asked for once more"
    finally:
        models.close()


def test_a_sampler_beyond_the_pages_ranges_starts_at_their_ends(tmp_path: Path) -> None:
    models = Models((str(small_model(tmp_path / "run")),), device="cpu", precision="float32")
    try:
        own = {"steps": 200, "guidance": 12.0, "token_temperature": 2.5}
        models["run"].model.recipe["sampling"] = own
        assert defaults(models["run"], models.limits) == (10, 100, 2)
    finally:
        models.close()


def test_what_visitors_left_is_deleted_at_the_end(tmp_path: Path) -> None:
    models = Models(("digits",), device="cpu", precision="float32")
    path = Path(models.keep(models["digits"].examples[0]))
    assert path.exists()
    models.close()
    assert not path.parent.exists()


def test_a_picture_is_written_once_so_that_no_browser_reads_half_of_it(models: Models) -> None:
    """Every generation begins with the same grey picture, which another visitor may be loading at this moment."""

    def pictures() -> Any:
        yield from generate(models, "digits", ANY, 0, 2, 1, 0, 1)

    answered = kindly(pictures, models.as_files)
    first = list(answered())
    assert [type(value) for value in first[0]] == [str, str, str]
    before = [Path(path).stat().st_ino for path in first[0][:2]]
    again = list(answered())
    assert first == again
    assert [Path(path).stat().st_ino for path in again[0][:2]] == before
    with Image.open(first[-1][0]) as picture:
        assert np.array_equal(np.array(picture), np.array(list(pictures())[-1].pictures))
    nested = models.as_files({"background": Image.new("L", (2, 2)), "layers": [], "other": (None, 3)})
    assert Path(nested["background"]).is_file()
    assert (nested["layers"], nested["other"]) == ([], (None, 3))
