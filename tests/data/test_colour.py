"""Colour jitter: grey stays grey, each image by itself, the same draws for the same generator."""

import colorsys

import pytest
import torch

from mage import rng
from mage.data.colour import ColourConfig, colour_draws, colour_jitter, turn_hue

NOTHING = ColourConfig(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def jitter(images: torch.Tensor, config: ColourConfig, seed: int = 0) -> torch.Tensor:
    return colour_jitter(images, config, colour_draws(len(images), rng.generator(seed, "colour")))


def test_strength_zero_changes_nothing(images: torch.Tensor) -> None:
    torch.testing.assert_close(jitter(images, NOTHING), images, atol=1e-5, rtol=0)


def test_images_are_changed_one_by_one_and_repeatably(images: torch.Tensor) -> None:
    strong = ColourConfig(probability=1.0, grey=0.0)
    same = images[:1].expand(4, -1, -1, -1)
    found = jitter(same, strong)
    assert all((found[0] - other).abs().max() > 0.01 for other in found[1:])
    assert torch.equal(found, jitter(same, strong))
    assert not torch.equal(found, jitter(same, strong, seed=1))
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_grey_images_have_no_colour_and_keep_their_brightness(images: torch.Tensor) -> None:
    found = jitter(images, ColourConfig(probability=0.0, grey=1.0))
    torch.testing.assert_close(found[:, 0], found[:, 2])
    weights = torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(found[:, 0], torch.einsum("nchw,c->nhw", images, weights))


def test_a_third_of_a_turn_makes_red_green_or_blue() -> None:
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1)
    for turn in (1 / 3, -1 / 3):
        found = turn_hue(red, torch.tensor([turn * 2 * torch.pi])).flatten()
        hue = colorsys.rgb_to_hsv(*found.clamp(0, 1).tolist())[0]
        assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.06
    grey = torch.full((1, 3, 2, 2), 0.4)
    torch.testing.assert_close(turn_hue(grey, torch.tensor([1.0])), grey)


def test_shares_are_shares() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        ColourConfig(hue=2)


def test_autocast_changes_nothing(images: torch.Tensor) -> None:
    plain = jitter(images, ColourConfig(grey=0.3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(jitter(images, ColourConfig(grey=0.3)), plain)
