"""Images and masks in every form that users hold: what is taken, what it becomes, and what each refusal says."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from mage import images
from mage.inputs import ImageTransform, as_images, as_mask

SIZE = (8, 6)
LEVELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
LEVELS[0, 0, 0], LEVELS[0, 0, 1] = 0, 255
EXPECTED = torch.from_numpy(LEVELS).permute(2, 0, 1).float() / 255
LUMA = (LEVELS.astype(int) @ [19595, 38470, 7471] + 32768) >> 16


def batch(given: Any, channels: int = 3, size: tuple[int, int] | None = SIZE, resize: bool = True) -> Tensor:
    return as_images(given, size=size, channels=channels, resize=resize).pixels


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "float16", "float32", "float64", "bfloat16"])
def test_tensors_of_bytes_and_of_any_floats_become_float32(kind: str, many: bool) -> None:
    tensor = torch.from_numpy(LEVELS).permute(2, 0, 1)
    tensor = tensor if kind == "uint8" else (tensor.double() / 255).to(getattr(torch, kind))
    found = as_images(tensor[None].repeat(2, 1, 1, 1) if many else tensor, size=SIZE, channels=3, resize=True)
    assert found.single is not many
    assert found.pixels.dtype == torch.float32
    assert found.pixels.shape == (2 if many else 1, 3, *SIZE)
    tolerance = {"float16": 1e-3, "bfloat16": 4e-3}.get(kind, 1e-6)
    assert (found.pixels - EXPECTED).abs().max() <= tolerance


def test_float32_tensors_are_handed_on_without_a_copy() -> None:
    tensor = EXPECTED[None].clone().requires_grad_()
    assert batch(tensor) is tensor


@given(
    layout=st.sampled_from(["HWC", "CHW", "NHWC", "NCHW"]),
    kind=st.sampled_from(["uint8", "uint16", ">u2", "float16", "float32", "float64", ">f4"]),
    channels=st.sampled_from([1, 3, 5]),
    height=st.integers(6, 9),
    width=st.integers(6, 9),
)
def test_arrays_are_read_where_their_channels_stand(
    layout: str, kind: str, channels: int, height: int, width: int
) -> None:
    levels = np.random.default_rng(1).integers(0, 256, (1, channels, height, width))
    expected = torch.from_numpy(levels).float() / 255
    array = levels.astype(kind) * 257 if kind.endswith(("16", "u2")) and "float" not in kind else levels.astype(kind)
    array = array / np.array(255, kind) if "f" in kind else array.astype(kind)
    array = np.moveaxis(array, 1, -1) if layout.endswith("HWC") else array
    found = as_images(array if "N" in layout else array[0], size=None, channels=channels, resize=True)
    assert found.single == ("N" not in layout)
    assert found.pixels.shape == expected.shape
    assert (found.pixels - expected).abs().max() <= 1e-3


def test_an_array_of_two_dimensions_is_one_grey_image() -> None:
    found = as_images(LEVELS[..., 0], size=SIZE, channels=1, resize=True)
    assert found.single
    assert torch.equal(found.pixels, EXPECTED[None, :1])
    assert torch.equal(batch(LEVELS[..., 0]), EXPECTED[None, :1].expand(-1, 3, -1, -1))


def test_arrays_that_numpy_only_lends_are_copied() -> None:
    lent = LEVELS.copy()
    lent.setflags(write=False)
    assert torch.equal(batch(lent), EXPECTED[None])
    assert torch.equal(batch(LEVELS[::-1, ::-1]), EXPECTED[None].flip(2, 3))


@pytest.mark.parametrize(
    ("shape", "channels", "words"),
    [
        ((3, 8, 3), 3, "can be read as HWC and as CHW: give a tensor"),
        ((1, 8, 3), 3, "can be read as HWC and as CHW"),
        ((2, 3, 8, 1), 1, "can be read as NHWC and as NCHW"),
        ((16, 28, 28), 1, r"shape \(16, 28, 28\) has no dimension of 1 or 3 channels"),
        ((8, 8, 4), 3, "has no dimension of 1 or 3 channels"),
        ((8, 8), 5, "has no dimension of 5 channels"),
        ((8,), 3, "has no dimension of"),
        ((0, 8, 3), 3, "there are no images"),
    ],
)
def test_arrays_of_unclear_layout_are_refused_with_the_readings(
    shape: tuple[int, ...], channels: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        batch(np.zeros(shape, np.uint8), channels)


def test_files_pil_images_arrays_and_tensors_of_one_picture_are_the_same_in_one_list(tmp_path: Path) -> None:
    picture = Image.fromarray(LEVELS)
    picture.save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", LEVELS)
    tensor = torch.from_numpy(LEVELS).permute(2, 0, 1)
    given = [picture, tmp_path / "a.png", str(tmp_path / "b.npy"), LEVELS, tensor, EXPECTED, EXPECTED[None], tmp_path]
    for channels, expected in ((3, EXPECTED), (1, torch.from_numpy(LUMA)[None].float() / 255)):
        found = as_images(given, size=SIZE, channels=channels, resize=True)
        assert not found.single
        assert found.pixels.shape == (9, channels, *SIZE)
        assert (found.pixels - expected).abs().max() <= (1e-6 if channels == 3 else 0.51 / 255)
    for one in given[:3]:
        assert as_images(one, size=SIZE, channels=3, resize=True).single
        assert not as_images([one], size=SIZE, channels=3, resize=True).single
    assert torch.equal(batch(tuple(given)), batch(given))


def test_a_folder_is_all_its_images_in_order_of_their_names(tmp_path: Path) -> None:
    for name, grey in (("b.png", 20), ("a.PNG", 10), (".c.png", 30), ("d.txt", 40)):
        Image.new("L", (4, 4), grey).save(tmp_path / name, format="png")
    (tmp_path / "e.png").mkdir()
    found = as_images(str(tmp_path), size=(4, 4), channels=1, resize=True)
    assert not found.single
    assert (found.pixels[:, 0, 0, 0] * 255).round().tolist() == [10, 20]
    (tmp_path / "b.png").unlink()
    assert not as_images(tmp_path, size=(4, 4), channels=1, resize=True).single, "a folder of one image is a batch"
    (tmp_path / "a.PNG").unlink()
    with pytest.raises(ValueError, match=r"holds no images: expected \.jpg.*directly in it"):
        batch(tmp_path)


def test_a_pipe_in_a_folder_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match=r"pipe\.png as an image: it is a pipe"):
        batch(tmp_path)


def test_grey_and_colour_are_converted_in_every_form() -> None:
    grey = torch.from_numpy(LEVELS[..., :1].copy()).permute(2, 0, 1)
    colour = torch.from_numpy(LEVELS).permute(2, 0, 1)
    luma = torch.from_numpy(LUMA)[None, None].float() / 255
    assert torch.equal(batch(grey), (grey.float() / 255).expand(1, 3, -1, -1))
    batch(grey)[0, 0] = 0  # the three channels are no views of one
    assert torch.equal(batch(colour, 1), luma)
    assert torch.equal(batch(LEVELS, 1), luma)
    assert torch.equal(batch(Image.fromarray(LEVELS), 1), luma)
    assert (batch(EXPECTED, 1) - luma).abs().max() <= 0.51 / 255
    white = torch.ones(3, *SIZE)
    assert torch.equal(batch(white, 1), white[None, :1])


@pytest.mark.parametrize(
    ("tensor", "channels", "words"),
    [
        (torch.zeros(4, 8, 6), 3, "has 4 channels, 3 are needed"),
        (torch.zeros(3, 8, 6), 5, "has 3 channels, 5 are needed"),
        (torch.zeros(8, 6, 3), 3, r"looks channels last: give tensor\.permute\(2, 0, 1\)"),
        (torch.zeros(2, 8, 6, 3), 3, r"permute\(0, 3, 1, 2\)"),
        (torch.zeros(8, 6), 1, r"shape \(8, 6\); give \(c, H, W\)"),
        (torch.zeros(0, 3, 8, 6), 3, "there are no images"),
        (torch.zeros(3, 8, 6, dtype=torch.bool), 3, r"holds torch\.bool; give uint8"),
        (torch.zeros(3, 8, 6, dtype=torch.int64), 3, r"holds torch\.int64; give uint8"),
        (torch.zeros(3, 8, 6, dtype=torch.complex64), 3, "complex64; give uint8"),
        (torch.zeros(3, 8, 6).to_sparse(), 3, "to_dense"),
    ],
)
def test_tensors_that_are_no_such_images_are_refused(tensor: Tensor, channels: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        batch(tensor, channels)


@pytest.mark.parametrize("form", ["tensor", "array"])
@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 255, "values run from 0 to 255: divide by 255, or give uint8"),
        (-2.1, 2.6, r"values run from -2\.1 to 2\.6: this looks normalised by a mean and standard deviation"),
        (-1, 1, r"from -1 to 1: this looks scaled to \[-1, 1\]: give \(x \+ 1\) / 2"),
        (0, 1.2, r"from 0 to 1\.2: give images in \[0, 1\]"),
        (0, 65535, r"give images in \[0, 1\]"),
        (0, float("nan"), "holds NaN or infinity"),
        (0, float("inf"), "holds NaN or infinity"),
        (0, 1e300, "holds NaN or infinity"),
    ],
)
def test_floats_outside_0_to_1_are_refused_with_a_suggestion(low: float, high: float, words: str, form: str) -> None:
    values = torch.linspace(0, 1, 3 * 8 * 6, dtype=torch.float64).view(3, 8, 6)
    values[0, 0, 0], values[2, 7, 5] = low, high
    with pytest.raises(ValueError, match=words):
        batch(values if form == "tensor" else values.numpy())


def test_floats_a_little_outside_pass() -> None:
    assert batch(torch.tensor([-0.009, 1.009]).repeat(3, 8, 3)).shape == (1, 3, *SIZE)


@pytest.mark.parametrize("kind", ["int64", "int32", "bool", "uint32", "complex64", "object"])
def test_arrays_of_other_types_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=f"holds {kind}; give uint8"):
        batch(np.zeros((8, 6, 3), kind))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "there are no images"),
        ((), "there are no images"),
        (None, "cannot take a NoneType as an image: give a tensor"),
        (b"bytes", "cannot take a bytes"),
        ([1, 2], "image 0 of the list: cannot take a int"),
        ([[EXPECTED]], "cannot take a list inside another list"),
        ("no/such.png", r"no such file: no/such\.png"),
        ("~nobody-here/x.png", "no such file"),
        ("a\0b.png", "cannot read"),
        ([EXPECTED, EXPECTED * 255], "image 1 of the list: .*divide by 255"),
    ],
)
def test_inputs_that_are_not_images_are_refused(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        batch(given)


def test_empty_pil_images_and_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="a PIL image has 1 or 3 channels, not 5"):
        batch(Image.fromarray(LEVELS), 5)
    with pytest.raises(ValueError, match="PIL image is empty: 0 x 4 pixels"):
        batch(Image.new("RGB", (0, 4)))


def test_files_pil_images_and_arrays_are_scaled_and_cut_but_tensors_of_another_size_refused(tmp_path: Path) -> None:
    large = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    expected = images.to_float(images.fit(torch.from_numpy(large).permute(2, 0, 1), SIZE))[None]
    for one in (large, Image.fromarray(large), tmp_path / "large.png", [large], large[None], tmp_path):
        assert torch.equal(batch(one), expected)
    floats = batch(large / 255)
    assert (floats - expected).abs().max() < 0.02
    tensor = torch.from_numpy(large).permute(2, 0, 1)
    with pytest.raises(ValueError, match=r"is 30 x 20 pixels, the model takes 6 x 8: scale it with model\.transform"):
        batch(tensor)
    assert torch.equal(ImageTransform(SIZE, 3)(tensor), expected[0])


def test_floats_that_are_scaled_stay_in_0_to_1_where_bicubic_overshoots() -> None:
    edge = np.zeros((4, 4, 3), np.float32)
    edge[:, 2:] = 1
    found = batch(edge, size=(16, 16))
    assert (found.min(), found.max()) == (0, 1)


def test_without_resizing_larger_images_keep_their_size_and_smaller_ones_are_refused(tmp_path: Path) -> None:
    large = np.zeros((20, 30, 3), np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    for one in (large, torch.zeros(3, 20, 30), tmp_path / "large.png"):
        assert batch(one, resize=False).shape == (1, 3, 20, 30)
    assert batch([large, torch.zeros(3, 20, 30)], resize=False).shape == (2, 3, 20, 30)
    with pytest.raises(ValueError, match=r"several sizes \(6 x 8, 30 x 20 pixels\): give each alone"):
        batch([large, EXPECTED], resize=False)
    with pytest.raises(ValueError, match=r"is 6 x 8 pixels, the model takes 7 x 8 or larger: enlarge it"):
        batch(EXPECTED, size=(8, 7), resize=False)
    with pytest.raises(ValueError, match=r"the image .*large\.png is 30 x 20 pixels, the model takes 31 x 20"):
        batch(tmp_path, size=(20, 31), resize=False)


def test_the_transform_of_a_data_loader_takes_one_image_in_any_form(tmp_path: Path) -> None:
    transform = ImageTransform((4, 5), 3)
    assert repr(transform) == "ImageTransform(size=(4, 5), channels=3)"
    assert pickle.loads(pickle.dumps(transform)) == transform
    picture = Image.fromarray(LEVELS)
    picture.save(tmp_path / "a.png")
    tensor = torch.from_numpy(LEVELS).permute(2, 0, 1)
    for one in (picture, tmp_path / "a.png", LEVELS, tensor):
        assert torch.equal(transform(one), batch(picture, size=(4, 5))[0])
    assert transform(EXPECTED).shape == (3, 4, 5)
    with pytest.raises(ValueError, match="one image at a time"):
        transform(tensor[None])
    with pytest.raises(ValueError, match="is a folder"):
        transform(tmp_path)
    with pytest.raises(ValueError, match="divide by 255"):
        transform(EXPECTED * 255)


MARKED = np.zeros(SIZE, bool)
MARKED[2:5, 1:4] = True


@pytest.mark.parametrize("kind", ["bool", "uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("high", [1, 255])
def test_masks_of_any_numbers_are_marked_from_half_of_the_highest(kind: str, high: int) -> None:
    array = MARKED.astype(kind) if kind == "bool" else (MARKED * high).astype(kind)
    expected = torch.from_numpy(MARKED)
    for mask in (array, torch.from_numpy(array)):
        found = as_mask(mask, SIZE)
        assert found.dtype == torch.bool
        assert torch.equal(found, expected)
        assert torch.equal(as_mask(mask[None], SIZE), expected[None])
        assert torch.equal(as_mask(mask[None, None], SIZE), expected[None])
        assert torch.equal(as_mask([mask, mask[None]], SIZE), expected.expand(2, -1, -1))
    assert torch.equal(as_mask(array[..., None], SIZE), expected)


def test_half_is_marked_and_less_is_not() -> None:
    assert as_mask(torch.tensor([[0.49, 0.5, 1.0]]), (1, 3)).tolist() == [[False, True, True]]
    assert as_mask(np.array([[127, 128, 255]], np.uint8), (1, 3)).tolist() == [[False, True, True]]
    assert not as_mask(torch.zeros(2, 2), (2, 2)).any()


def test_painted_masks_are_read_from_pictures_and_files_and_what_is_transparent_is_not_marked(tmp_path: Path) -> None:
    expected = torch.from_numpy(MARKED)
    painted = Image.fromarray((MARKED * 255).astype(np.uint8))
    layer = Image.new("RGBA", painted.size, (255, 255, 255, 0))
    layer.putalpha(painted)
    for number, picture in enumerate((painted, painted.convert("1"), painted.convert("RGB"), layer)):
        picture.save(path := tmp_path / f"{number}.png")
        for mask in (picture, path, str(path)):
            assert torch.equal(as_mask(mask, SIZE), expected)
    assert torch.equal(as_mask(np.array(layer), SIZE), expected)
    assert torch.equal(as_mask([painted, tmp_path / "1.png"], SIZE), expected.expand(2, -1, -1))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.zeros(4, 6, dtype=torch.bool), "the mask is 6 x 4 pixels, the image 6 x 8: they must have the same"),
        (Image.new("L", (6, 4)), "the mask is 6 x 4 pixels"),
        (np.zeros((2, 3, 8, 6), bool), r"shape \(2, 3, 8, 6\); give \(H, W\)"),
        (torch.zeros(0, 8, 6), r"shape \(0, 8, 6\)"),
        (torch.full(SIZE, 300), "the mask runs from 300 to 300"),
        (torch.full(SIZE, -1.0), "the mask runs from -1 to -1; give bool"),
        (torch.full(SIZE, float("nan")), "the mask runs from nan"),
        (torch.zeros(SIZE, dtype=torch.complex64), "complex64; give bool"),
        (np.zeros(SIZE, object), "holds object; give bool"),
        (None, "cannot take a NoneType as a mask: give a tensor"),
        ([], "there are no masks"),
        (".", "is a folder"),
    ],
)
def test_inputs_that_are_not_masks_are_refused(mask: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        as_mask(mask, SIZE)
