"""Transforms: what they cut, that only the given generator decides, and that their description tells them apart."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mage import rng
from mage.data.transforms import TransformConfig, build_transform, describe
from mage.data.warp import warp


def noise(channels: int = 3, height: int = 40, width: int = 60) -> Tensor:
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=rng.generator(0, "test"))


def ramp(height: int, width: int) -> Tensor:
    """Every pixel tells its place: channel 0 its row, channel 1 its column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).to(torch.uint8)


@pytest.mark.parametrize("augmentation", ["none", "flip", "crop", "crop_flip", "shift", "warp", "warp_flip"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (12, 20), (64, 64)])
def test_the_result_is_uint8_of_the_wanted_size_and_depends_on_the_generator_alone(augmentation, channels, size):
    transform = build_transform(TransformConfig(size=size, augmentation=augmentation))
    global_state = torch.get_rng_state()
    first = transform(noise(channels), rng.generator(0, "a"))
    again = transform(noise(channels), rng.generator(0, "a"))
    assert torch.equal(torch.get_rng_state(), global_state)
    assert first.shape == (channels, *size)
    assert first.dtype == torch.uint8
    assert first.is_contiguous()
    assert torch.equal(first, again)
    others = [transform(noise(channels), rng.generator(0, "b", number)) for number in range(20)]
    assert all(torch.equal(first, other) for other in others) == (augmentation == "none")


def test_an_image_of_the_right_size_is_left_alone():
    transform = build_transform(TransformConfig(size=(40, 60)))
    assert torch.equal(transform(noise(), rng.generator(0)), noise())


def test_the_centre_crop_shows_the_whole_shorter_side_unless_resize_is_larger():
    image = ramp(40, 80)
    whole = build_transform(TransformConfig(size=(40, 40)))(image, rng.generator(0))
    assert torch.equal(whole, image[:, :, 20:60])
    inner = build_transform(TransformConfig(size=(30, 30), resize=40))(image, rng.generator(0))
    assert torch.equal(inner, image[:, 5:35, 25:55])


@pytest.mark.parametrize("resize", [0, 36])
def test_a_strip_of_any_length_is_cut_before_it_is_scaled(resize: int) -> None:
    """Scaled as a whole, it would have 36 x 180,000,000 pixels."""
    transform = build_transform(TransformConfig(size=(32, 32), resize=resize))
    assert transform(torch.full((1, 1, 5_000_000), 9, dtype=torch.uint8), rng.generator(0)).unique().tolist() == [9]


def test_flip_mirrors_about_half_of_the_images_and_changes_nothing_else():
    image, transform = noise(), build_transform(TransformConfig(size=(40, 60), augmentation="flip"))
    results = [transform(image, rng.generator(0, number)) for number in range(200)]
    mirrored = [torch.equal(result, image.flip(-1)) for result in results]
    assert all(flipped or torch.equal(result, image) for flipped, result in zip(mirrored, results, strict=True))
    assert 70 < sum(mirrored) < 130


def test_shift_moves_whole_pixels_in_every_direction_and_fills_with_black():
    image = ramp(8, 8) + 1
    transform = build_transform(TransformConfig(size=(8, 8), augmentation="shift", max_shift=2))
    seen = set()
    for number in range(200):
        result = transform(image, rng.generator(0, number))
        row, column = (int(value) for value in result[:, 4, 4])
        down, right = 5 - row, 5 - column
        seen.add((down, right))
        expected = torch.zeros_like(image)
        for y in range(8):
            for x in range(8):
                if 0 <= y - down < 8 and 0 <= x - right < 8:
                    expected[:, y, x] = image[:, y - down, x - right]
        assert torch.equal(result, expected)
    assert seen == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def test_random_crops_have_the_areas_and_shapes_that_were_asked_for():
    config = TransformConfig(size=(32, 32), augmentation="crop", scale=(0.2, 0.5))
    transform, image = build_transform(config), ramp(200, 200)
    areas, ratios, tops = [], [], []
    for number in range(300):
        result = transform(image, rng.generator(0, number)).float()
        # a scaled ramp: the middles of its outermost pixels lie half an output pixel inside the crop
        height, width = ((result[i].max() - result[i].min()).item() * 32 / 31 for i in (0, 1))
        areas.append(height * width / 200**2)
        ratios.append(width / height)
        tops.append(result[0].min().item())
    assert 0.17 < min(areas) < 0.23
    assert 0.46 < max(areas) < 0.53
    assert 0.72 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.4
    assert min(tops) < 10
    assert max(tops) > 80


def test_crops_drawn_once_are_cut_off_at_the_edges_as_in_the_public_probe():
    """Their mean area on a photo's shape is that of the formula, min(width, ..) times min(height, ..): 0.575."""
    transforms = {
        draws: build_transform(TransformConfig(size=(64, 64), augmentation="crop", crop_draws=draws))
        for draws in ("once", "until_inside")
    }
    image, areas = ramp(150, 200), {draws: [] for draws in transforms}
    for draws, transform in transforms.items():
        for number in range(1500):
            result = transform(image, rng.generator(0, number)).float()
            sides = [(result[i].max() - result[i].min()).item() * 64 / 63 for i in (0, 1)]
            areas[draws].append(sides[0] * sides[1] / (150 * 200))
    random = np.random.default_rng(0)
    area, ratio = random.uniform(0.2, 1, 200_000) * 150 * 200, np.exp(random.uniform(-1, 1, 200_000) * np.log(4 / 3))
    public = np.minimum(np.sqrt(area * ratio), 200) * np.minimum(np.sqrt(area / ratio), 150) / (150 * 200)
    assert np.mean(areas["once"]) == pytest.approx(public.mean(), abs=0.015)
    assert public.mean() == pytest.approx(0.575, abs=0.005)
    assert np.mean(areas["until_inside"]) == pytest.approx(0.495, abs=0.015)


def test_an_image_too_long_for_any_crop_is_cut_in_the_centre():
    config = TransformConfig(size=(12, 12), augmentation="crop", scale=(1.0, 1.0))
    result = build_transform(config)(ramp(10, 250), rng.generator(0)).float()
    assert result[1].mean() == pytest.approx(124.5, abs=1)
    assert result[1].max() - result[1].min() < 14


def test_bicubic_crops_differ_from_bilinear_ones():
    bilinear = TransformConfig(size=(16, 16), augmentation="crop")
    results = [
        build_transform(config)(noise(), rng.generator(0))
        for config in (bilinear, replace(bilinear, interpolation="bicubic"))
    ]
    assert not torch.equal(*results)


def test_a_warp_of_nothing_leaves_the_image():
    still = TransformConfig((40, 60), augmentation="warp", max_rotation=0.0, max_stretch=0.0, distortion=0.0)
    assert torch.equal(build_transform(still)(noise(), rng.generator(0)), noise())


def test_a_warp_is_computed_where_the_image_is():
    image = torch.zeros(3, 12, 16, dtype=torch.uint8, device="meta")
    warped = warp(image, rng.generator(0), rotation=20.0, stretch=0.1, distortion=0.1)
    assert (warped.shape, warped.device.type) == (image.shape, "meta")


def test_a_warp_turns_about_the_centre_without_slanting_an_oblong_image():
    image = torch.zeros(1, 41, 81, dtype=torch.uint8)
    image[:, 5:36, 40] = 255  # an upright line of 31 pixels
    turning = TransformConfig((41, 81), augmentation="warp", max_rotation=90.0, max_stretch=0.0, distortion=0.0)
    angles = []
    for number in range(30):
        result = build_transform(turning)(image, rng.generator(0, number))[0].float()
        assert result[20, 40] > 150, "the centre stays where it is"
        rows, columns = (result > 100).nonzero().unbind(dim=1)
        length = math.hypot(*((edge.max() - edge.min()).item() for edge in (rows, columns)))
        assert length == pytest.approx(30, abs=3), "a rotation keeps lengths, whatever the shape of the image"
        angles.append(
            math.degrees(math.atan2(columns[rows.argmax()] - columns[rows.argmin()], rows.max() - rows.min()))
        )
    assert min(angles) < -50
    assert max(angles) > 50


def test_warp_flip_mirrors_about_half_of_what_warp_gives():
    image, still = noise(), {"max_rotation": 0.0, "max_stretch": 0.0, "distortion": 0.0}
    transform = build_transform(TransformConfig((40, 60), augmentation="warp_flip", **still))
    results = [transform(image, rng.generator(0, number)) for number in range(100)]
    mirrored = [torch.equal(result, image.flip(-1)) for result in results]
    assert all(flipped or torch.equal(result, image) for flipped, result in zip(mirrored, results, strict=True))
    assert 30 < sum(mirrored) < 70


def test_a_warp_continues_the_border_and_keeps_flat_images_flat():
    flat = torch.full((3, 16, 16), 200, dtype=torch.uint8)
    wild = TransformConfig((16, 16), augmentation="warp", max_rotation=180.0, max_stretch=0.4, distortion=0.2)
    for number in range(20):
        assert torch.equal(build_transform(wild)(flat, rng.generator(0, number)), flat)


def test_the_distortion_of_a_warp_is_smooth_and_of_the_stated_size():
    image = ramp(64, 64) * 2 + 60  # pixels tell where they came from, twice per pixel
    transform = TransformConfig((64, 64), augmentation="warp", max_rotation=0.0, max_stretch=0.0, distortion=0.02)
    moved = torch.stack([build_transform(transform)(image, rng.generator(0, number)) for number in range(50)])
    displacement = (moved.float() - image.float())[..., 12:-12, 12:-12] / 2
    assert displacement.std().item() == pytest.approx(0.02 * 64, rel=0.35)
    assert displacement.diff(dim=-1).abs().max() <= 0.5, "neighbours move together"


def test_descriptions_differ_where_results_do_and_are_one_line():
    plain = TransformConfig(size=(16, 16))
    crop = replace(plain, augmentation="crop")
    different = [
        plain,
        replace(plain, size=(16, 20)),
        replace(plain, resize=20),
        replace(plain, augmentation="flip"),
        replace(plain, augmentation="shift"),
        replace(plain, augmentation="shift", max_shift=3),
        replace(plain, augmentation="warp"),
        replace(plain, augmentation="warp_flip"),
        replace(plain, augmentation="warp", max_rotation=9.0),
        replace(plain, augmentation="warp", max_stretch=0.2),
        replace(plain, augmentation="warp", distortion=0.03),
        crop,
        replace(plain, augmentation="crop_flip"),
        replace(crop, scale=(0.2000001, 1.0)),
        replace(crop, ratio=(0.75001, 4 / 3)),
        replace(crop, interpolation="bicubic"),
        replace(crop, crop_draws="once"),
    ]
    texts = [describe(config) for config in different]
    assert len(set(texts)) == len(texts)
    assert all("\n" not in text for text in texts)
    assert describe(replace(plain, scale=(0.5, 1.0), max_shift=1)) == describe(plain)
    assert describe(plain) == "none 16x16"  # written into caches: changing it makes them unusable


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": (0, 8)}, "image size must be positive"),
        ({"scale": (0.0, 1.0)}, "crop scale needs 0 < low"),
        ({"ratio": (2.0, 1.0)}, "crop ratio needs 0 < low"),
        ({"augmentation": "shift", "max_shift": 16}, "max_shift must be at least 0 and below"),
        ({"max_rotation": -1.0}, "a warp needs max_rotation in"),
        ({"max_stretch": 0.5}, "a warp needs max_rotation in"),
        ({"distortion": float("nan")}, "a warp needs max_rotation in"),
        ({"resize": 12}, r"resize 12 is too small .* try 16 or 0"),
    ],
)
def test_impossible_settings_are_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        TransformConfig(**{"size": (16, 16), **wrong})


def test_a_transform_can_be_sent_to_another_process():
    transform = build_transform(TransformConfig(size=(16, 16), augmentation="crop_flip"))
    again = pickle.loads(pickle.dumps(transform))
    assert torch.equal(again(noise(), rng.generator(0)), transform(noise(), rng.generator(0)))
