"""Visibility of the border of an edit: steps of pixel values across it, compared to those near it.

Letters: n images, c channels, H W pixels.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

BAND = 8
"""Distance from the border of an edit, in pixels, that counts as near."""


def seam_ratio(images: Float[Tensor, "n c H W"], mask: Bool[Tensor, "m H W"]) -> Float[Tensor, " n"]:
    """Mean absolute step across the border of the mask, over that of other pixel pairs near it in the same direction.

    1: the border is as smooth as its surroundings; compare with the value of the image before the edit. NaN for a mask
    without border. Raises ValueError unless there is one mask per image, of its size.
    """
    if mask.shape != (len(images), *images.shape[-2:]):
        raise ValueError(f"masks are {tuple(mask.shape)} for images of {tuple(images.shape)}: give one each")
    near = _reach(mask) & _reach(~mask)
    across, expected = images.new_zeros(len(images)), images.new_zeros(len(images))
    for axis in (1, 2):
        length = mask.shape[axis] - 1
        step = (images.narrow(axis + 1, 1, length) - images.narrow(axis + 1, 0, length)).abs().mean(dim=1)
        border = mask.narrow(axis, 1, length) != mask.narrow(axis, 0, length)
        nearby = near.narrow(axis, 0, length) & near.narrow(axis, 1, length) & ~border
        usual = (step * nearby).sum(dim=(1, 2)) / nearby.sum(dim=(1, 2)).clamp(min=1)
        across += (step * border).sum(dim=(1, 2))
        expected += usual * border.sum(dim=(1, 2))
    return across / torch.where(expected > 0, expected, torch.where(across > 0, 1e-6, torch.nan))


def _reach(mask: Tensor) -> Tensor:
    """The pixels within BAND pixels of the mask."""
    grown = functional.max_pool2d(mask[:, None].float(), 2 * BAND + 1, stride=1, padding=BAND)
    return torch.gt(grown[:, 0], 0)
