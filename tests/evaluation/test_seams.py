"""The step at the border of an edit."""

import pytest
import torch

from mage import rng
from mage.evaluation.seams import seam_ratio


def half(size: int = 24) -> torch.Tensor:
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, :, size // 2 :] = True
    return mask


def test_a_smooth_image_has_no_seam() -> None:
    ramp = torch.linspace(0, 1, 24).expand(1, 3, 24, 24)
    assert float(seam_ratio(ramp, half())) == pytest.approx(1)
    noise = torch.rand(1, 3, 24, 24, generator=rng.generator(0))
    assert float(seam_ratio(noise, half())) == pytest.approx(1, abs=0.15)


def test_a_jump_shows() -> None:
    noise = torch.rand(1, 3, 24, 24, generator=rng.generator(0)) * 0.1
    jumped = noise.clone()
    jumped[..., 12:] += 0.5
    assert float(seam_ratio(jumped, half())) > 5 * float(seam_ratio(noise, half()))


def test_masks_without_border_have_none() -> None:
    assert torch.isnan(seam_ratio(torch.rand(1, 1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool))).all()
    with pytest.raises(ValueError, match="give one each"):
        seam_ratio(torch.rand(2, 1, 8, 8), half(8))
