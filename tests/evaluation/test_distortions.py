"""The tools of corruptions against loops and scipy, as the public code calls it."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from mage import rng
from mage.evaluation.corruptions import KINDS, corrupt
from mage.evaluation.distortions import disk, displaced, gaussian, motion, plasma, sheared, shuffled
from tests.reference import corruptions as slow


def image(channels: int, height: int, width: int) -> Tensor:
    return torch.rand(channels, height, width, generator=rng.generator(0, "image"))


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.25, 0.7, 1.5, 6.4, 40.0])
def test_gaussian_is_scipys(sigma: float) -> None:
    x = image(2, 17, 23)
    for edge, mode, truncate in (("nearest", "nearest", 4.0), ("mirror", "reflect", 3.0)):
        expected = ndimage.gaussian_filter(x.double().numpy(), (0, sigma, sigma), mode=mode, truncate=truncate)
        found = gaussian(x, sigma, truncate=truncate, edge=edge)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("radius", "blur"), [*KINDS["defocus_blur"].large, *KINDS["defocus_blur"].small])
def test_the_disk_out_of_focus_is_the_loops(radius: float, blur: float) -> None:
    found, expected = disk(radius, blur).numpy(), slow.disk(radius, blur)
    room = (len(expected) - len(found)) // 2
    np.testing.assert_allclose(np.pad(found, room), expected, atol=1e-6)
    assert found.sum() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("delta", "size"), [(1, (9, 12)), (2, (16, 16)), (4, (21, 17))])
def test_shuffling_follows_the_official_loop(delta: int, size: tuple[int, int]) -> None:
    x = image(3, *size)
    move = torch.randint(-delta, delta, (2, *size), generator=rng.generator(0, delta))
    expected = slow.shuffled(x.permute(1, 2, 0).double().numpy(), move.numpy(), delta)
    np.testing.assert_allclose(shuffled(x, move, delta).permute(1, 2, 0).numpy(), expected, atol=1e-7)
    assert not torch.equal(shuffled(x, move, delta), x)


@pytest.mark.parametrize("angle", [-120.0, -45.0, -10.0, 0.0, 31.0])
def test_motion_is_half_a_gaussian_along_a_line(angle: float) -> None:
    x = image(1, 12, 15)
    expected = slow.motion(x[0].double().numpy(), 4, 2.5, angle)
    np.testing.assert_allclose(motion(x, 4, 2.5, angle)[0].numpy(), expected, atol=1e-6)


def test_zoom_blur_is_scipys_zoom_up_to_an_exclusive_end() -> None:
    for side, table in ((32, KINDS["zoom_blur"].small), (224, KINDS["zoom_blur"].large)):
        x = image(1, side, side)
        for severity in (1, 3, 5):
            factors = np.arange(1, *table[severity - 1])
            expected = slow.zoom_blur(x.permute(1, 2, 0).double().numpy(), factors)
            found = corrupt(x, "zoom_blur", severity, rng.generator(0))
            np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-4)
    assert np.arange(1, *KINDS["zoom_blur"].small[4])[-1] == pytest.approx(1.25)
    assert np.arange(1, *KINDS["zoom_blur"].large[4])[-1] == pytest.approx(1.30)


def test_displacing_and_shearing_are_scipys_maps() -> None:
    x = image(1, 20, 27)
    move = 6 * (2 * torch.rand(2, 20, 27, generator=rng.generator(1)) - 1)
    expected = slow.displaced(x[0].double().numpy(), move.double().numpy())
    np.testing.assert_allclose(displaced(x, move)[0].numpy(), expected, atol=1e-4)
    corners = 3 * (2 * torch.rand(3, 2, generator=rng.generator(2)) - 1)
    expected = slow.sheared(x[0].double().numpy(), corners.double().numpy())
    np.testing.assert_allclose(sheared(x, corners)[0].numpy(), expected, atol=1e-4)
    torch.testing.assert_close(sheared(x, torch.zeros(3, 2)), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("decay", [1.4, 3.0])
def test_plasma_is_diamonds_and_squares(decay: float) -> None:
    generator, noise = rng.generator(0), []
    for count in (1, 2, 4, 8):
        noise += [2 * torch.rand(count, count, generator=generator).double().numpy() - 1 for _ in range(3)]
    np.testing.assert_allclose(plasma(16, decay, rng.generator(0)).numpy(), slow.plasma(16, decay, noise), atol=1e-5)
