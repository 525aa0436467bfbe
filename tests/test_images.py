"""Files and tensors: value ranges, cropping, masks of pixels, grids and labels."""

import io
import math
import os
import struct
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

from mage import array_files, images, pictures


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert images.load_image(tmp_path / "deep.png", channels=1).flatten().tolist() == [0, 1, 100, 255]


def test_pictures_beyond_pillows_limit_are_refused_like_damaged_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"cannot read .*huge\.png"):
        images.load_image(tmp_path / "huge.png")


def test_arrays_beyond_the_same_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "huge.npy", np.zeros((40, 41, 3), dtype=np.uint16))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    with pytest.raises(ValueError, match=r"huge\.npy holds 4,920 numbers, more than an image may have"):
        images.load_image(tmp_path / "huge.npy")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1640)
    assert images.load_image(tmp_path / "huge.npy").shape == (3, 40, 41)


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_pictures_that_pillow_only_warns_of_are_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1599)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(ValueError, match=r"40 x 40 pixels are more than PIL\.Image\.MAX_IMAGE_PIXELS, 1599"),
    ):
        images.load_image(tmp_path / "large.png")
    for limit in (1600, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert images.load_image(tmp_path / "large.png").shape == (3, 40, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_their_exif_says(tmp_path: Path, orientation: int) -> None:
    upright = levels(5, 7, 3).numpy()
    camera_saw = {  # how the scene lies in memory: EXIF's row 0 and column 0 are these sides of the scene
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = torch.from_numpy(upright.transpose(2, 0, 1).copy())
    for name in ("a.png", "a.tif"):
        Image.fromarray(np.ascontiguousarray(camera_saw)).save(tmp_path / name, exif=exif)
        assert torch.equal(images.load_image(tmp_path / name), expected)
        assert torch.equal(images.from_bytes((tmp_path / name).read_bytes()), expected)
        with Image.open(tmp_path / name) as opened:
            assert torch.equal(images.from_pil(opened, 3), expected)
    Image.fromarray(np.ascontiguousarray(camera_saw)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert images.load_image(tmp_path / "a.jpg").shape == expected.shape


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "I;16", "I;16B", "RGBA"])
def test_scans_that_lie_on_their_side_are_read_as_the_bytes_of_their_files_are(
    tmp_path: Path, mode: str, orientation: int
) -> None:
    kinds = {"L": "u1", "RGBA": "u1", "I;16": "<u2", "I;16B": ">u2"}
    array = (levels(5, 7, 4) if mode == "RGBA" else levels(5, 7)).numpy().astype(kinds[mode])
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.frombytes(mode, (7, 5), (array * 257 if mode.startswith("I") else array).tobytes())
    picture.save(tmp_path / "a.tif", exif=exif)
    found = images.load_image(tmp_path / "a.tif", 1)
    assert found.shape == ((1, 7, 5) if orientation > 4 else (1, 5, 7))
    assert torch.equal(found, images.from_bytes((tmp_path / "a.tif").read_bytes(), 1))


def test_damaged_exif_leaves_the_pixels_as_they_are(tmp_path: Path) -> None:
    pixels = levels(5, 7, 3)
    Image.fromarray(pixels.numpy()).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert torch.equal(images.load_image(tmp_path / "a.png"), pixels.permute(2, 0, 1))


def square_on_nothing(mode: str) -> Image.Image:
    """A black square on transparent black."""
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (1, 1, 3, 3))
    if mode == "P":
        flat = Image.new("P", (4, 4), 0)
        flat.putpalette([0, 0, 0, 0, 0, 0])
        flat.paste(1, (1, 1, 3, 3))
        flat.info["transparency"] = 0
        return flat
    if mode == "PA":
        flat = Image.new("P", (4, 4), 0)
        flat.putpalette([0, 0, 0])
        flat = flat.convert("PA")
        flat.putalpha(picture.getchannel("A"))
        return flat
    if mode in ("La", "RGBa"):
        return picture.convert("LA" if mode == "La" else "RGBA").convert(mode)
    return picture.convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "La", "RGBa"])
def test_transparent_pixels_become_white(mode: str, channels: int) -> None:
    expected = torch.full((channels, 4, 4), 255, dtype=torch.uint8)
    expected[:, 1:3, 1:3] = 0
    assert torch.equal(images.from_pil(square_on_nothing(mode), channels), expected)
    assert not images.from_pil(square_on_nothing(mode), channels, ground="black").any()


@pytest.mark.parametrize(("mode", "key", "name"), [("L", 7, "a.png"), ("RGB", (7, 7, 7), "a.png"), ("P", 7, "a.gif")])
def test_a_transparent_colour_is_white(mode: str, key: int | tuple[int, ...], name: str, tmp_path: Path) -> None:
    picture = Image.new("L", (4, 4), 7)
    picture.paste(9, (0, 0, 2, 2))
    if mode == "P":
        picture.putpalette([level for level in range(256) for _ in range(3)])
    picture = picture.convert(mode) if mode == "RGB" else picture
    picture.save(tmp_path / name, transparency=key)
    found = images.load_image(tmp_path / name)
    assert (found[:, :2, :2] == 9).all()
    assert (found[:, 2:] == 255).all()


def test_half_transparent_is_halfway_to_white() -> None:
    assert images.from_pil(Image.new("RGBA", (1, 1), (100, 0, 255, 51)), 3).flatten().tolist() == [224, 204, 255]


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "I;16B", "F"]
)
def test_every_mode_of_pil_shows_black_and_white(mode: str) -> None:
    if mode == "LAB":
        picture = Image.new("LAB", (2, 1), (0, 128, 128))
        picture.putpixel((1, 0), (255, 128, 128))
    elif mode.startswith("I"):
        kind = {"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode]
        picture = Image.frombytes(mode, (2, 1), np.array([0, 65535], kind).tobytes())
    else:
        picture = Image.new("L", (2, 1), 0)
        picture.putpixel((1, 0), 255)
        picture = picture.convert("RGB").convert(mode) if mode in ("HSV", "CMYK") else picture.convert(mode)
    assert picture.mode == mode
    for channels in (1, 3):
        found = images.from_pil(picture, channels)
        assert found.shape == (channels, 1, 2)
        assert found[..., 0].max() <= 1
        assert found[..., 1].min() >= 254


def test_floating_point_pictures_are_0_to_1_or_0_to_255(tmp_path: Path) -> None:
    for values in ([0, 0.5, 1], [0, 128, 255]):
        Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
        assert images.load_image(tmp_path / "a.tif", 1).flatten().tolist() == [0, 128, 255]
    for values, words in (
        ([0, 1000], "run from 0 to 1000"),
        ([0, np.nan], "run from nan"),
        ([-2, 1], "run from -2 to 1"),
    ):
        picture = Image.fromarray(np.array([values], np.float32))
        with pytest.raises(ValueError, match=words):
            images.from_pil(picture, 1)
        picture.save(tmp_path / "a.tif")
        with pytest.raises(ValueError, match=rf"cannot read .*a\.tif as an image \(its values {words}"):
            images.load_image(tmp_path / "a.tif", 1)


def test_formats_that_are_programs_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    def run(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match="EPS is not a format of pixels"):
        images.load_image(tmp_path / "a.png")


@pytest.mark.parametrize(("name", "channels"), [("a.png", 3), ("a.tif", 3), ("a.tif", 5), ("a.npy", 3), ("a.npy", 5)])
def test_pipes_and_devices_are_refused_without_opening_them(name: str, channels: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=r"a\.\w+ as an image: it is a pipe, a socket or a device"):
        images.load_image(tmp_path / name, channels)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="it is a folder"):
        images.load_image(tmp_path / name, channels)
    (tmp_path / name).rmdir()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="a device"):
        images.load_image(tmp_path / name, channels)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / name)
    with pytest.raises(ValueError, match="cannot read"):
        images.load_image(tmp_path / name, channels)


def header_of(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """The start of a .npy file that claims this shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": kind})
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(2**15, 2**15, 4), (2**40, 2**40, 5), (2**63, 2, 5)])
def test_an_npy_header_that_claims_more_than_its_file_is_refused_before_anything_is_allocated(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.npy").write_bytes(header_of(shape).ljust(200, b"\0"))
    monkeypatch.setattr(np, "memmap", lambda *_: pytest.fail("the array was made"))
    with pytest.raises(ValueError, match=r"it claims more values than its \d+ bytes hold$"):
        images.load_image(tmp_path / "a.npy", channels=shape[-1])


@pytest.mark.parametrize(
    "content", [header_of((0, 4, 3)), header_of((-1, 4, 3)), header_of((4, 4, 3), "|O"), header_of((4, 4, 3), "|V0")]
)
def test_npy_headers_of_no_values_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content + bytes(100))
    with pytest.raises(ValueError, match=r"cannot read .*a\.npy|has shape"):
        images.load_image(tmp_path / "a.npy")


def test_npy_files_of_columns_and_of_other_byte_orders_are_read(tmp_path: Path) -> None:
    pixels = levels(4, 6, 3)
    for number, array in enumerate((np.asfortranarray(pixels.numpy()), pixels.numpy().astype(">u2") * 257)):
        np.save(tmp_path / f"{number}.npy", array)
        assert torch.equal(images.load_image(tmp_path / f"{number}.npy"), pixels.permute(2, 0, 1))


def test_npy_files_become_grey_or_colour_as_pictures_do_and_their_range_is_explained(tmp_path: Path) -> None:
    pixels = levels(4, 6, 3)
    Image.fromarray(pixels.numpy()).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", pixels.numpy())
    assert torch.equal(images.load_image(tmp_path / "a.npy", 1), images.load_image(tmp_path / "a.png", 1))
    np.save(tmp_path / "a.npy", pixels.numpy()[..., 0])
    assert torch.equal(images.load_image(tmp_path / "a.npy"), pixels[None, ..., 0].expand(3, -1, -1))
    np.save(tmp_path / "a.npy", pixels.float().numpy())
    with pytest.raises(ValueError, match=r"a\.npy: values run from \d.* to 2\d\d: divide by 255"):
        images.load_image(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("size", r"shape \(2000000, 1600, 5\) is 16,000,000,000 values, and at most"),
        ("strips", "lacks some of its strips"),
        ("circle", "pages"),
    ],
)
def test_a_tiff_that_claims_more_than_it_holds_is_refused_at_once(change: str, words: str, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.zeros((8, 16, 5), np.uint8), photometric="minisblack", planarconfig="contig", metadata=None
    )
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        places = {tag.name: tag.valueoffset for tag in page.tags}
        if change == "size":
            for name, value in (("ImageLength", 2_000_000), ("ImageWidth", 1600), ("RowsPerStrip", 2_000_000)):
                data[places[name] : places[name] + 4] = struct.pack("<I", value)
                data[page.tags[name].offset + 2 : page.tags[name].offset + 4] = struct.pack("<H", 4)
        elif change == "strips":
            data[places["RowsPerStrip"] : places["RowsPerStrip"] + 2] = struct.pack("<H", 1)
        else:  # 120 pages, the last of which leads back to the one before it: tifffile looks for circles at page 100
            first = page.offset
            count = struct.unpack_from("<H", data, first)[0]
            entries = bytes(data[first + 2 : first + 2 + 12 * count])
            start = len(data)
            step = 2 + 12 * count + 4
            data[first + 2 + 12 * count : first + step] = struct.pack("<I", start)
            for k in range(119):
                follows = start + (k + 1) * step if k < 118 else start + 117 * step
                data += struct.pack("<H", count) + entries + struct.pack("<I", follows)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words):
        images.load_image(path, channels=5)


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


def test_pixels_of_both_kinds_become_the_same_picture() -> None:
    for channels in (1, 3, 5):
        pixels = levels(channels, 5, 7)
        shown = np.asarray(images.to_pil(pixels))
        assert np.array_equal(shown, np.asarray(images.to_pil(images.to_float(pixels))))
        assert np.array_equal(shown, (pixels.permute(1, 2, 0) if channels == 3 else pixels[0]).numpy())


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


@pytest.mark.parametrize("pixels", [(1, 25_000_000), (25_000_000, 1)])
@pytest.mark.parametrize("size", [(32, 32), (8, 64)])
def test_a_strip_of_any_length_takes_no_more_memory_than_its_middle(
    pixels: tuple[int, int], size: tuple[int, int]
) -> None:
    """Scaled as a whole, it would have 32 x 800,000,000 pixels."""
    fitted = images.fit(torch.full((1, *pixels), 200, dtype=torch.uint8), size)
    assert (fitted.shape, int(fitted.min()), int(fitted.max())) == ((1, *size), 200, 200)
    assert images.fit_mask(torch.ones(pixels, dtype=torch.bool), size).all()


@pytest.mark.parametrize("pixels", [(40, 4000), (4001, 40)])
def test_the_middle_of_a_strip_is_where_it_was(pixels: tuple[int, int]) -> None:
    wave = (128 + 100 * torch.sin(torch.arange(max(pixels)) / 9)).to(torch.uint8)
    strip = wave.expand(1, *pixels) if pixels[1] > pixels[0] else wave[:, None].expand(1, *pixels)
    whole = v2.Compose([v2.Resize(32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)])(strip)
    assert (images.fit(strip, (32, 32)).int() - whole.int()).abs().max() <= 8, "within half a pixel"
    assert images.shorten(strip, (32, 32)).shape != strip.shape
    ordinary = strip[:, :300, :300]
    assert images.shorten(ordinary, (32, 32)) is ordinary


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
    sheet = pictures.labelled_rows([("original", first), ("", second)], side=32)
    rows = [images.make_grid(repeat(part, 4), columns=3) for part in (first, second)]
    height, margin = rows[0].shape[1], sheet.shape[2] - rows[0].shape[2]
    assert sheet.shape[:2] == (3, 2 * height)
    assert torch.equal(sheet[:, :height, margin:], rows[0])
    assert torch.equal(sheet[:, height:, margin:], rows[1])
    assert sheet[:, :height, :margin].min() < 0.5, "the word is dark"
    assert (sheet[:, height:, :margin] == 1).all(), "no word, nothing drawn"
    other = pictures.labelled_rows([("masked", first)], side=32)
    assert not torch.equal(other[:, :, :margin], sheet[:, :height, :margin])


def test_rows_of_different_numbers_of_images_are_filled_with_white() -> None:
    rows = [(str(number), torch.zeros(number, 3, 8, 8)) for number in range(1, 9)]
    for _ in range(8):  # types of rows are checked at random
        sheet = pictures.labelled_rows(rows, side=8)
    height = pictures.labelled_rows(rows[:1], side=8).shape[1]
    assert (sheet[:, :height, -8:] == 1).all()
    assert (sheet[:, -height:, -8:] == 0).any()


def test_more_images_than_fit_a_row_go_on_below_under_the_same_labels() -> None:
    shown = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sheet = pictures.labelled_rows([("original", shown)], side=8, most=3)
    blocks = [pictures.labelled_rows([("original", part)], side=8) for part in shown.split(3)]
    assert sheet.shape[1] == sum(block.shape[1] for block in blocks)
    assert torch.equal(sheet[:, : blocks[0].shape[1]], blocks[0])
    assert torch.equal(sheet[:, blocks[0].shape[1] :, : blocks[1].shape[2]], blocks[1])
    assert (sheet[:, blocks[0].shape[1] :, blocks[1].shape[2] :] == 1).all()


def test_panels_stand_below_their_titles_and_marks_have_a_colour() -> None:
    grey = torch.zeros(1, 8, 8)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:4] = True
    tinted = pictures.marked(grey, mask)
    assert tinted.shape == (3, 8, 8)
    assert (tinted[:, ~mask] == 0).all()
    assert (tinted[0, mask] > tinted[1, mask]).all(), "not grey"
    sheet = pictures.panels([("before", grey.expand(3, -1, -1)), ("marked", tinted)], side=64)
    assert sheet.shape == (3, 24 + 68, 2 * 68)
    assert sheet[:, :24].min() < 0.5, "titles are dark"
    assert torch.equal(sheet[:, 26:90, 2:66], torch.zeros(3, 64, 64))


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


@pytest.mark.parametrize(
    ("shape", "length", "words"),
    [
        ((20_000, 20_000), 0, r"it claims 400,000,000 bytes of values in a file of"),
        ((8, 16), 2**18, "a strip or tile is longer than the values in it"),
    ],
)
def test_a_tiff_whose_strips_cannot_be_what_it_claims_is_refused(
    shape: tuple[int, int], length: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile = pytest.importorskip("tifffile")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 16), np.uint8), compression="zlib", metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages.first.tags
        written = {"ImageLength": shape[0], "ImageWidth": shape[1], "RowsPerStrip": shape[0]}
        for name, value in (written | ({"StripByteCounts": length} if length else {})).items():
            struct.pack_into("<HII", data, tags[name].offset + 2, 4, 1, value)
    path.write_bytes(data + bytes(length))
    with pytest.raises(ValueError, match=words):
        array_files.read_tiff(path, 10**9)
