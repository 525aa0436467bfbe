"""Files and tensors: value ranges, cropping, masks of pixels, grids and labels."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from mage import images


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert images.load_image(tmp_path / "deep.png", channels=1).flatten().tolist() == [0, 1, 100, 255]


def test_pictures_beyond_pillows_limit_are_refused_like_damaged_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="cannot read"):
        images.load_image(tmp_path / "huge.png")


def levels(*shape: int) -> Tensor:
    """Random uint8 pixels."""
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def gradient(height: int, width: int) -> Tensor:
    """Red is the row and green the column, both from 0 to 200, so that a crop tells where it was taken."""
    rows = torch.linspace(0, 200, height)[:, None].expand(-1, width)
    columns = torch.linspace(0, 200, width).expand(height, -1)
    return torch.stack([rows, columns, torch.zeros(height, width)]).round().to(torch.uint8)


def repeat(batch: Tensor, factor: int) -> Tensor:
    """Each pixel `factor` times in both directions."""
    return batch.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)


def test_a_file_is_read_as_grey_or_rgb_whatever_its_mode(tmp_path: Path) -> None:
    pixels = levels(5, 7, 3)
    Image.fromarray(pixels.numpy()).save(tmp_path / "colour.png")
    Image.fromarray(pixels[..., 0].contiguous().numpy()).save(tmp_path / "grey.png")
    assert torch.equal(images.load_image(tmp_path / "colour.png"), pixels.permute(2, 0, 1))
    assert torch.equal(images.load_image(tmp_path / "grey.png", channels=1), pixels[None, ..., 0])
    assert torch.equal(images.load_image(tmp_path / "grey.png"), pixels[None, ..., 0].expand(3, -1, -1))
    luma = pixels.double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    assert (images.load_image(str(tmp_path / "colour.png"), channels=1)[0] - luma).abs().max() <= 0.51


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*broken\.png as an image"):
        images.load_image(path)


def test_a_missing_file_and_a_wrong_number_of_channels_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file: .*none\.png"):
        images.load_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match="cannot hold other than 1 or 3 channels"):
        images.load_image(tmp_path / "none.png", channels=4)


def test_every_level_survives_the_way_to_float_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    floats = images.to_float(every)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (0, 1)
    assert torch.equal(images.to_uint8(floats), every)
    assert torch.equal(images.to_uint8(floats.to(torch.bfloat16)[:, :8]), every[:, :8]), "half precision will do"


def test_floats_are_rounded_to_the_nearest_level_and_clamped() -> None:
    values = torch.tensor([-3.0, -0.001, 0.4 / 255, 0.6 / 255, 99.4 / 255, 99.6 / 255, 254.6 / 255, 1.5])
    assert images.to_uint8(values.view(1, 2, 4)).flatten().tolist() == [0, 0, 0, 1, 99, 100, 255, 255]


def test_channels_that_no_picture_has_are_shown_by_the_first(generator: torch.Generator) -> None:
    five = torch.rand(5, 4, 6, generator=generator)
    assert images.to_pil(five).mode == "L"
    assert images.to_pil(five).tobytes() == images.to_pil(five[:1]).tobytes()
    assert images.to_pil(five[:3]).mode == "RGB"


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), size=st.tuples(st.integers(1, 24), st.integers(1, 24))
)  # fmt: skip
def test_any_image_fills_any_size_without_borders(height: int, width: int, size: tuple[int, int]) -> None:
    fitted = images.fit(torch.full((1, height, width), 200, dtype=torch.uint8), size)
    assert fitted.shape == (1, *size)
    assert fitted.dtype == torch.uint8
    assert (fitted == 200).all(), "padding would be black"


@pytest.mark.parametrize(
    ("pixels", "size"), [((40, 100), (20, 20)), ((100, 40), (20, 20)), ((64, 64), (16, 32)), ((10, 30), (20, 20))]
)
def test_the_centre_is_kept_and_nothing_is_squeezed(pixels: tuple[int, int], size: tuple[int, int]) -> None:
    fitted = images.fit(gradient(*pixels), size).float()
    scale = max(size[0] / pixels[0], size[1] / pixels[1])
    for channel, (before, after) in enumerate(zip(pixels, size, strict=True)):
        places = fitted[channel] if channel else fitted[channel].T
        assert places.mean().item() == pytest.approx(100, abs=2), "the middle of the original"
        step = places[:, 1:].diff(dim=1)[:, 2:-2].mean().item() if after > 6 else 0
        assert step == pytest.approx(200 / (before - 1) / scale, rel=0.05), "neighbours are as far apart as before"


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("pixels", [(451, 300), (300, 451), (333, 500), (257, 256), (97, 31), (64, 64)])
def test_a_square_is_cut_where_torchvision_cuts_it(
    pixels: tuple[int, int], interpolation: Literal["bilinear", "bicubic"]
) -> None:
    """The longer side is truncated, not rounded: a pixel more would shift the centre, and with it every FID."""
    image = levels(3, *pixels)
    for side in (256, 64, 33):
        oracle = v2.Compose([v2.Resize(side, v2.InterpolationMode(interpolation)), v2.CenterCrop(side)])
        assert torch.equal(images.fit(image, (side, side), interpolation), oracle(image))


def test_truncated_levels_are_those_of_a_cast_as_in_the_public_code() -> None:
    values = torch.linspace(-0.1, 1.1, 7001).view(1, 1, -1)
    public = np.clip(values.numpy() * 255, 0, 255).astype(np.uint8)
    assert np.array_equal(images.to_uint8(values, "truncate").numpy(), public)
    assert not np.array_equal(images.to_uint8(values).numpy(), public)


def test_an_image_that_just_covers_is_only_cut() -> None:
    image = levels(3, 8, 14)
    assert torch.equal(images.fit(image, (8, 8)), image[:, :, 3:11])
    assert torch.equal(images.fit(image, (8, 14)), image)


@given(row=st.integers(0, 299), column=st.integers(0, 299), side=st.integers(1, 32))
def test_one_marked_pixel_of_a_large_mask_survives(row: int, column: int, side: int) -> None:
    mask = torch.zeros(300, 300, dtype=torch.bool)
    mask[row, column] = True
    fitted = images.fit_mask(mask, (side, side))
    assert fitted[row * side // 300, column * side // 300]
    assert fitted.sum() <= 4, "a pixel on an edge touches up to four"


def test_pixels_that_show_nothing_marked_stay_unmarked() -> None:
    mask = torch.zeros(64, 96, dtype=torch.bool)
    assert not images.fit_mask(mask, (16, 16)).any()
    mask[16:32, 16 + 32 : 16 + 48] = True  # the centre of 64 x 64 begins at column 16
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:8, 8:12] = True
    assert torch.equal(images.fit_mask(mask, (16, 16)), expected)
    mask[:, :16] = True  # is cut off
    assert torch.equal(images.fit_mask(mask, (16, 16)), expected)


def test_small_masks_grow_with_their_image() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[:3, :3] = True
    assert torch.equal(images.fit_mask(mask, (6, 6)), expected)


@given(pixels=st.tuples(st.integers(1, 40), st.integers(1, 40)), size=st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_a_mask_gets_the_size_of_its_image(pixels: tuple[int, int], size: tuple[int, int]) -> None:
    fitted = images.fit_mask(torch.ones(pixels, dtype=torch.bool), size)
    assert fitted.dtype == torch.bool
    assert fitted.shape == size
    assert fitted.all()


@pytest.mark.parametrize(("count", "columns", "padding"), [(5, None, 2), (5, 2, 1), (3, 5, 0), (1, None, 3)])
def test_images_stand_row_by_row_on_white(count: int, columns: int | None, padding: int) -> None:
    height, width = 3, 4
    batch = torch.rand(count, 2, height, width, generator=torch.Generator().manual_seed(0)) * 0.9
    across = columns or math.ceil(math.sqrt(count))
    down = -(-count // across)
    grid = images.make_grid(batch, columns=columns, padding=padding)
    assert grid.shape == (2, padding + down * (height + padding), padding + across * (width + padding))
    white = torch.ones(grid.shape[1:], dtype=torch.bool)
    for number in range(count):
        for row in range(height):
            for column in range(width):
                y = padding + number // across * (height + padding) + row
                x = padding + number % across * (width + padding) + column
                assert torch.equal(grid[:, y, x], batch[number, :, row, column])
                white[y, x] = False
    assert (grid[:, white] == 1).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_every_pixel(tmp_path: Path, channels: int) -> None:
    pixels = levels(channels, 5, 6)
    images.save_png(tmp_path / "new" / "image.png", images.to_float(pixels))
    assert torch.equal(images.load_image(tmp_path / "new" / "image.png", channels), pixels)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["image.png"]


@pytest.mark.parametrize(("shape", "factor"), [((8, 16), 4), ((16, 5), 4), ((64, 64), 1), ((100, 10), 1)])
def test_small_pictures_are_enlarged_by_whole_pixels_and_large_ones_left(shape: tuple[int, int], factor: int) -> None:
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    large = images.enlarge(image, least=64)
    assert large.shape == (2, shape[0] * factor, shape[1] * factor)
    for y in range(factor):
        for x in range(factor):
            assert torch.equal(large[:, y::factor, x::factor], image)


def test_each_row_has_its_label_on_the_left_and_its_images_after_it() -> None:
    first, second = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sheet = images.labelled_rows([("original", first), ("", second)], side=32)
    rows = [images.make_grid(repeat(part, 4), columns=3) for part in (first, second)]
    height, margin = rows[0].shape[1], sheet.shape[2] - rows[0].shape[2]
    assert sheet.shape[:2] == (3, 2 * height)
    assert torch.equal(sheet[:, :height, margin:], rows[0])
    assert torch.equal(sheet[:, height:, margin:], rows[1])
    assert sheet[:, :height, :margin].min() < 0.5, "the word is dark"
    assert (sheet[:, height:, :margin] == 1).all(), "no word, nothing drawn"
    other = images.labelled_rows([("masked", first)], side=32)
    assert not torch.equal(other[:, :, :margin], sheet[:, :height, :margin])


@pytest.mark.parametrize("layout", ["hwc", "chw"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_arrays_of_many_bands_are_read_as_bytes(layout: str, kind: str, tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (4, 6, 5))
    stored = {"uint8": levels, "uint16": levels * 257, "float32": levels / 255}[kind].astype(kind)
    stored = stored if layout == "hwc" else stored.transpose(2, 0, 1)
    np.save(tmp_path / "bands.npy", stored)
    found = images.load_image(tmp_path / "bands.npy", channels=5)
    assert torch.equal(found, torch.from_numpy(levels.transpose(2, 0, 1)).to(torch.uint8))


def test_a_tiff_of_many_bands(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    levels = np.random.default_rng(0).integers(0, 256, (8, 9, 7)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "bands.tif", levels)
    assert torch.equal(images.load_image(tmp_path / "bands.tif", 7), torch.from_numpy(levels.transpose(2, 0, 1).copy()))


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("x.npy", np.zeros((4, 4, 3), np.uint8), "has shape"),
        ("x.npy", np.zeros((4, 4, 5), np.int64), "holds int64"),
        ("x.npy", np.full((4, 4, 5), np.nan), "NaN"),
        ("x.npy", np.zeros((0, 4, 5), np.uint8), "has shape"),
        ("x.png", None, "give .npy or TIFF"),
        ("x.npy", None, "no such file"),
    ],
)
def test_arrays_that_are_no_such_image_are_refused(
    name: str, array: np.ndarray | None, words: str, tmp_path: Path
) -> None:
    if array is not None:
        np.save(tmp_path / name, array)
    with pytest.raises(ValueError, match=words):
        images.load_image(tmp_path / name, channels=5)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(ValueError, match="cannot read"):
        images.load_image(tmp_path / "cut.npy", channels=5)
