"""A person's way through every tab, in Chromium without a network: what is shown, keyboard, widths, accessibility."""

import base64
import importlib.util
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import mage
from mage import images
from mage.report.explore import build_exploration
from mage.runs.explore import explore
from tests.web.conftest import CHROMIUM, ROOT

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"the browser tests need {CHROMIUM}")
TABS = ("Generate", "Edit", "Reconstruct", "Look", "Model")
WAIT = 40_000
"""Milliseconds for what the model computes on a busy machine."""


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Any]]:
    """Start Chromium, which reaches this machine only."""
    with playwright.sync_playwright() as driver:
        own = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        yield lambda *more: driver.chromium.launch(executable_path=str(CHROMIUM), args=[*own, *more])


@pytest.fixture(scope="module", autouse=True)
def already_told(served: SimpleNamespace) -> int:
    """Characters that the server wrote before these tests, such as its errors about attacks in others."""
    return len(served.errors.read_text())


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Any]) -> Iterator[Any]:
    chromium = launch()
    yield chromium
    chromium.close()


@pytest.fixture
def visit(browser: Any, served: SimpleNamespace) -> Iterator[Any]:
    """Open the page at a size and in a colour scheme; at the end no request has left this machine."""
    contexts, requests = [], []

    def opened(width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(WAIT)
        context.on("request", lambda request: requests.append(request.url))
        contexts.append(context)
        page = context.new_page()
        page.goto(served.url)
        page.get_by_role("tab", name="Generate").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    outside = [url for url in requests if not url.startswith((served.url, "data:", "blob:", "about:"))]
    assert requests
    assert not outside


def go(page: Any, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()


def picture(page: Any, label: str) -> Any:
    return page.get_by_alt_text(label, exact=True)


def test_generate_fills_in_step_by_step_and_repeats_itself_with_the_seed(visit: Any) -> None:
    page = visit()
    page.get_by_label("number input for Images").fill("4")
    page.get_by_label("number input for Steps").fill("6")
    said: list[str] = []
    page.get_by_role("button", name="Generate", exact=True).click()
    status = page.locator(".said >> visible=true")
    end = time.monotonic() + WAIT / 1000
    while "4 images of 49 tokens" not in (text := status.inner_text()):
        assert time.monotonic() < end
        said.append(text)
        time.sleep(0.02)
    assert any(re.search(r"\d of 6 steps", text) for text in said), "steps are told before the end"
    picture(page, "The generated images").wait_for()
    picture(page, "The step in which each token became known, as a colour").wait_for()
    first = picture(page, "The generated images").get_attribute("src")
    page.get_by_role("button", name="Next seed").click()
    playwright.expect(page.get_by_label("Seed").locator("visible=true")).to_have_value("1")
    page.wait_for_function(f"!document.querySelector('img[alt=\"The generated images\"]').src.includes({first!r})")


SLOW_PAGE = """<p class="said">16 images of 49 tokens, in 5 steps</p><img alt="The generated images" src="{old}">
<button onclick="go()">Generate</button><script>
const [said, image] = [document.querySelector('.said'), document.querySelector('img')];
function show(after, text, source) { setTimeout(() => { said.textContent = text; image.src = source; }, after); }
function go() {
    show(100, 'Every token is unknown', '{grey}');
    show(600, '1 of 5 steps', '{step}');
    show(700, '16 images of 49 tokens, in 5 steps', '{old}');
}
</script>"""


def test_the_study_of_the_first_click_waits_for_images_and_not_for_the_grey_picture_before_them(browser: Any) -> None:
    found = importlib.util.spec_from_file_location("first_click", ROOT / "studies" / "first_click.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "studies"))
        found.loader.exec_module(module)
        sys.modules.pop("choices", None)
    html, page = SLOW_PAGE, browser.new_page()
    for name in ("old", "grey", "step"):
        pixel = f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><desc>{name}</desc></svg>'
        html = html.replace(f"{{{name}}}", f"data:image/svg+xml;base64,{base64.b64encode(pixel.encode()).decode()}")
    page.set_content(html)
    assert [0.5 < module.click(page) < 5 for _ in range(2)] == [True, True]
    page.close()


def test_the_map_of_a_folder_lights_images_outside_of_its_sub_folders(browser: Any, tmp_path: Path) -> None:
    for number in range(8):
        images.save_png(tmp_path / "photos" / ("." if number < 3 else "town") / f"{number}.png", torch.rand(1, 28, 28))
    model = mage.load("digits", device="cpu", precision="float32")
    page = browser.new_page()
    page.set_content(build_exploration(explore(model, tmp_path / "photos", model_name="digits")))
    page.locator(".controls select").select_option("labels")
    button = page.get_by_role("button", name="no sub-folder")
    for lit in (5, 0):
        button.click()
        assert page.locator(".field b.faint").count() == lit
        assert button.get_attribute("aria-pressed") == str(lit > 0).lower()
    page.locator(".map").focus()
    spoken = []
    for _ in range(2):
        page.keyboard.press("ArrowRight")
        spoken.append(page.get_by_role("status").inner_text())
    assert [re.match(r"(town/)?\d\.png, ", each) is not None for each in spoken] == [True] * 2
    assert len(set(spoken)) == 2, "what the arrow keys choose is read out"
    page.close()


def test_stop_ends_a_generation(visit: Any) -> None:
    page = visit()
    page.get_by_label("number input for Steps").fill("100")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_text(re.compile(r"[1-9]\d* of 100 steps")).wait_for()
    page.get_by_role("button", name="Stop").locator("visible=true").click()
    page.wait_for_timeout(1000)
    status = page.locator(".said >> visible=true")
    text = status.inner_text()
    assert "of 100 steps" in text
    page.wait_for_timeout(1000)
    assert status.inner_text() == text


def test_a_painted_part_is_redrawn(visit: Any) -> None:
    page = visit()
    go(page, "Edit")
    canvas = page.locator(".painting canvas").first
    canvas.wait_for()
    page.wait_for_timeout(1000)  # the editor lays itself out
    assert not page.get_by_text("it has no WebGL").is_visible()
    below = [element.bounding_box() for element in (canvas, page.get_by_role("button", name="Edit", exact=True))]
    assert all(box["y"] + box["height"] < 800 for box in below), "seen without scrolling on a laptop"
    page.get_by_label("number input for Steps").locator("visible=true").fill("2")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Nothing is painted: paint over what is to be redrawn, or choose another task.").wait_for()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 10, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Edit", exact=True).click()
    text = page.get_by_text(re.compile(r"^\d+ of 49 tokens are redrawn")).locator("visible=true")
    text.wait_for()
    assert 1 <= int(text.inner_text().split()[0]) <= 20
    picture(page, "Four results of the edit").wait_for()
    picture(page, "The picture with the redrawn tokens in colour").wait_for()


def test_without_webgl_the_page_says_that_only_painting_is_missing(
    launch: Callable[..., Any], served: SimpleNamespace
) -> None:
    plain = launch("--disable-3d-apis")
    page = plain.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(WAIT)
    page.goto(served.url)
    go(page, "Edit")
    page.get_by_text("it has no WebGL. The other tasks need no painting.").wait_for()
    assert not page.locator(".painting").is_visible()
    plain.close()


def test_a_class_is_changed_and_tasks_show_their_settings(visit: Any) -> None:
    page = visit()
    go(page, "Edit")
    page.get_by_label("Outpaint one side").check()
    page.get_by_label("Side that is redrawn").wait_for()
    page.get_by_label("Vary").check()
    page.get_by_label("number input for Share that is redrawn").wait_for()
    page.get_by_label("Class of the new content").click()
    page.get_by_role("option", name="7", exact=True).click()
    page.get_by_label("number input for Steps").locator("visible=true").fill("2")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("50% of the tokens are redrawn").wait_for()


def test_an_own_picture_is_taken_and_a_file_that_is_none_is_refused_kindly(visit: Any, tmp_path: Path) -> None:
    page = visit()
    go(page, "Reconstruct")
    status = page.locator(".said >> visible=true")
    before = status.inner_text()
    Image.new("RGB", (300, 200), (200, 30, 60)).save(tmp_path / "red.jpg")
    (tmp_path / "broken.png").write_text("no image")
    with page.expect_file_chooser() as opened:
        page.get_by_role("button", name="Upload your own picture").locator("visible=true").click()
    opened.value.set_files(tmp_path / "red.jpg")
    page.wait_for_function(f"[...document.querySelectorAll('.said')].every(e => e.innerText != {before!r})")
    assert "37 of 49 tokens hidden" in status.inner_text()
    with page.expect_file_chooser() as opened:
        page.get_by_role("button", name="Upload your own picture").locator("visible=true").click()
    opened.value.set_files(tmp_path / "broken.png")
    refusal = page.get_by_text("Cannot read broken.png as an image")
    refusal.wait_for()
    assert "/" not in refusal.inner_text()


def test_the_slider_hides_more_tokens(visit: Any) -> None:
    page = visit()
    go(page, "Reconstruct")
    page.get_by_text("37 of 49 tokens hidden").wait_for()
    for label in ("The original picture", "The picture with its hidden tokens in grey"):
        picture(page, label).wait_for()
    page.get_by_label("number input for Share of the tokens that is hidden").fill("0.2")
    page.keyboard.press("Tab")
    page.get_by_text("10 of 49 tokens hidden").wait_for()


def test_a_look_shows_attention_surprise_neighbours_and_a_map(visit: Any) -> None:
    page = visit()
    go(page, "Look")
    page.get_by_role("button", name="Thumbnail 3 of 16").locator("visible=true").click()
    page.get_by_role("button", name="Look at this picture").click()
    for label in ("Where the class token of the encoder looks", "The chosen picture"):
        picture(page, label).wait_for()
    page.get_by_text("surprise").locator("visible=true").first.wait_for()
    assert ", 1.00" in page.locator(".examples .caption-label >> visible=true").first.inner_text()
    page.get_by_role("button", name="Draw the map of all images").click()
    frame = page.frame_locator("iframe.map >> visible=true")
    frame.get_by_role("application", name=re.compile("Map of the images")).wait_for()
    assert frame.locator(".map b").count() == 64


def test_the_keyboard_alone_generates_and_changes_tabs(visit: Any) -> None:
    page = visit()
    page.get_by_role("tab", name="Generate").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText") == "Generate":
            break
    else:
        pytest.fail("the button Generate cannot be reached with the Tab key")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    page.keyboard.press("Enter")
    picture(page, "The generated images").wait_for()
    page.get_by_role("tab", name="Generate").focus()
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("tab", name="Reconstruct", selected=True).wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_nothing_overflows_and_axe_finds_no_serious_fault(visit: Any, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(width, scheme)
    for tab in TABS:
        go(page, tab)
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab
        faults = [
            (fault["id"], fault["nodes"][0]["html"])
            for fault in axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert not faults, (tab, faults)


def test_the_server_reached_nothing_but_this_machine(served: SimpleNamespace, already_told: int) -> None:
    assert not served.reached_out.exists(), served.reached_out.read_text()
    assert "Traceback" not in served.errors.read_text()[already_told:]
