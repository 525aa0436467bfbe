"""What a visitor may ask for, and how a refusal sounds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mage import images
from mage.web.limits import Limits, TooLong, kindly, read_picture, real, whole


@pytest.mark.parametrize("value", [-1, 17, float("nan"), float("inf"), "4", None, True, 1e400, 2.5, [1]])
def test_a_number_outside_its_range_or_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^the count must"):
        whole(value, 0, 16, "the count")


def test_numbers_in_their_range_are_taken() -> None:
    assert whole(16.0, 1, 16, "the count") == 16
    assert real(0, 0, 1, "the share") == 0.0


def test_an_upload_of_too_many_pixels_or_bytes_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (3000, 2000)).save(path)
    assert read_picture(path, 1).shape == (1, 2000, 3000)
    with pytest.raises(ValueError, match=r"large\.png.*3000 x 2000 pixels are more than 100000\b"):
        read_picture(path, 1, Limits(pixels=100_000))
    path.write_bytes(bytes(2_000_001))
    with pytest.raises(ValueError, match=r"^large\.png is larger than 2 MB"):
        read_picture(path, 1, Limits(upload_megabytes=2))


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\x89PNG\r\n\x1a\n" + bytes(40), b"<svg/>"])
def test_a_file_that_is_no_image_is_refused_without_the_servers_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "holiday.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"holiday\.png as an image") as caught:
        read_picture(path, 3)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("path", [None, ""])
def test_no_picture_is_told_what_to_do(path: str | None) -> None:
    with pytest.raises(ValueError, match="choose one of the examples"):
        read_picture(path, 3)


def test_a_photo_of_a_phone_is_upright(tmp_path: Path) -> None:
    photo = Image.new("RGB", (40, 20), "red")
    tags = photo.getexif()
    tags[274] = 6  # turn by 90 degrees
    photo.save(tmp_path / "photo.jpg", exif=tags)
    assert read_picture(tmp_path / "photo.jpg", 3).shape == (3, 40, 20)


@pytest.mark.parametrize("error", [ValueError("the seed is\nwrong"), TooLong("the seed is wrong")])
def test_a_refusal_is_one_sentence_in_the_browser_and_no_traceback_in_the_log(error: Exception) -> None:
    gradio = pytest.importorskip("gradio")

    def once() -> None:
        raise error

    def steps() -> Any:
        yield 1
        raise error

    with pytest.raises(gradio.Error) as caught:
        kindly(once)()
    assert caught.value.message == "The seed is wrong."
    assert not caught.value.print_exception
    results = kindly(steps)()
    assert next(results) == 1
    with pytest.raises(gradio.Error, match="The seed is wrong"):
        next(results)


def test_a_bug_is_not_told_as_a_visitors_mistake() -> None:
    pytest.importorskip("gradio")

    def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        kindly(broken)()


def test_the_most_pixels_of_a_file_are_pillows_limit_unless_told_otherwise(tmp_path: Path) -> None:
    images.save_png(tmp_path / "a.png", torch.zeros(1, 20, 30))
    assert images.load_image(tmp_path / "a.png", 1, most_pixels=600).shape == (1, 20, 30)
    with pytest.raises(ValueError, match="30 x 20 pixels are more than 599"):
        images.load_image(tmp_path / "a.png", 1, most_pixels=599)
