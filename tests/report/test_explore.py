"""The page about a folder: one file, every image in its place, bounded, and names are text."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mage
from mage import images, rng
from mage.models import MAGEConfig
from mage.recipes import named
from mage.report.explore import IN_GROUP, build_exploration, write_exploration
from mage.report.thumbnails import COLUMNS, sheet_styles, shown
from mage.runs.explore import THUMBNAIL, Exploration, explore, thumbnail
from tests.report.test_report import Page

HOSTILE = '<img src=x>"&amp;.png'


@pytest.fixture(scope="module")
def model() -> mage.Mage:
    sizes = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return mage.build(sizes, tokenizer=named("smoke").tokenizer, precision="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder") / "photos"
    for number in range(30):
        picture = torch.rand(1, 12, 20, generator=rng.generator(number, "picture")) * (0.3 + 0.7 * (number % 2))
        images.save_png(root / ("dark", "light")[number % 2] / f"{number:02d}.png", picture)
    (root / "dark" / HOSTILE).write_bytes((root / "dark" / "00.png").read_bytes())
    (root / "light" / "broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def found(model: mage.Mage, folder: Path) -> Exploration:
    return explore(model, folder, model_name="runs/m", batch_size=8)


def test_the_page_names_copies_unreadable_files_and_methods(found: Exploration, tmp_path: Path) -> None:
    text = write_exploration(found, tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.headings == ["map", "groups", "duplicates", "outliers", "how"]
    assert f"dark/00.png dark/{HOSTILE} equal features" in page.text
    assert "broken.png cannot be read as an image" in page.text
    assert "31 of 32 images" in page.text
    assert "t-SNE (perplexity 10" in page.text
    assert "mean silhouette" in page.text
    assert "runs/m, mean features" in page.text


def test_the_page_loads_nothing_and_names_of_files_are_text(found: Exploration) -> None:
    text = build_exploration(found)
    page = Page(text)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    addresses = re.findall(r"url\(([^)]*)\)", page.styles)
    assert addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert not re.search(r"https?:|fetch\(|import ", text)
    assert [tag for tag, _ in page.tags].count("img") == 0, "the file's name made no element"
    assert "</script" not in text.split('id="images">')[1].split("</script>")[0]


def test_every_image_has_a_dot_at_its_place_in_the_data(found: Exploration) -> None:
    text = build_exploration(found)
    data = json.loads(text.split('id="images">')[1].split("</script>")[0])
    assert data["files"] == list(found.files)
    assert f"dark/{HOSTILE}" in data["files"]
    form = r'<b class="k(\d+)" style="left:([\d.]+)%;top:([\d.]+)%;--x:(\d+);--y:(\d+)"></b>'
    dots = re.findall(form, text)
    assert len(dots) == 31
    for index, (group, left, top, column, row) in enumerate(dots):
        assert int(column) + COLUMNS * int(row) == index, "its picture's place on the sheet"
        assert int(group) == data["groups"][index] == found.clusters.labels[index]
        assert (float(left), float(top)) == pytest.approx((100 * data["x"][index], 100 * data["y"][index]), abs=0.01)
    assert set(data["label_names"]) == {"dark", "light"}


def test_the_map_shows_pictures_of_few_images_and_dots_of_many(
    found: Exploration, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = build_exploration(found)
    assert '<div class="map pictures"' in few
    assert '<input type="checkbox" checked>' in few
    monkeypatch.setattr("mage.report.explore.MOST_PICTURES", 30)
    many = build_exploration(found)
    assert '<div class="map"' in many
    assert '<input type="checkbox">' in many


def test_pictures_are_found_again_on_their_sheets() -> None:
    pictures = [Image.new("RGB", (8, 6), (number % 256, 255 - number % 256, 0)) for number in range(300)]
    sheets = re.findall(
        r"\.s(\d+) \{ background-image: url\(data:image/jpeg;base64,([^)]*)\)", sheet_styles(pictures, 8)
    )
    decoded = {int(number): Image.open(io.BytesIO(base64.b64decode(data))) for number, data in sheets}
    assert sorted(decoded) == [0, 1]
    for index in (0, 17, 255, 256, 299):
        sheet, x, y = map(int, re.findall(r"s(\d+)\" style=\"--x:(\d+);--y:(\d+)", shown(index, "a"))[0])
        assert (x, y) == (index % COLUMNS**2 % COLUMNS, index % COLUMNS**2 // COLUMNS)
        red, green, _ = decoded[sheet].getpixel((8 * x + 4, 8 * y + 4))
        assert (red, green) == pytest.approx((index % 256, 255 - index % 256), abs=24)


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (96, 96), (97, 40), (3000, 2), (2, 3000)])
def test_thumbnails_fit_their_cell_and_keep_the_shape(size: tuple[int, int]) -> None:
    made = thumbnail(torch.randint(0, 256, (3, *size), dtype=torch.uint8))
    assert max(made.size) <= THUMBNAIL
    assert min(made.size) >= 1
    if min(size) > 20:
        assert made.width / made.height == pytest.approx(size[1] / size[0], rel=0.05)
    if max(size) < THUMBNAIL:
        assert len(np.unique(np.asarray(made).reshape(-1, 3), axis=0)) <= size[0] * size[1], "pixels stay pixels"


def test_the_limit_bounds_the_page_and_takes_images_from_the_whole_folder(model: mage.Mage, folder: Path) -> None:
    few = explore(model, folder, limit=10)
    assert len(few.files) <= 10
    assert few.total == 32
    assert {file.split("/")[0] for file in few.files} == {"dark", "light"}
    page = build_exploration(few)
    assert "spread over the order" in page
    whole = build_exploration(explore(model, folder, clusters=1))
    group = whole.split('class="group k0"')[1].split("</section>")[0]
    assert group.count('class="t ') == IN_GROUP, "of a large group some are shown"


class OnApple(torch.Tensor):
    """Like a tensor on a GPU that has no float64."""

    def double(self) -> torch.Tensor:
        raise TypeError("the MPS framework has no float64")

    def cpu(self) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor)


def test_devices_without_double_precision_will_do(
    model: mage.Mage, folder: Path, found: Exploration, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = model.features
    monkeypatch.setattr(model, "features", lambda *given: features(*given).as_subclass(OnApple))
    assert torch.equal(explore(model, folder, batch_size=8).features, found.features)


def test_a_folder_without_a_readable_image_is_refused(model: mage.Mage, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 1 images"):
        explore(model, tmp_path)
