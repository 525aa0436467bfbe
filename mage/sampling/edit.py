"""From masks of pixels to masks of tokens (paper, section 4.5: inpainting, outpainting, uncropping).

Letters: n images, c channels, H W pixels, h w tokens.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from mage.nn.grids import rows_and_columns


def token_mask(pixels: Bool[Tensor, "n H W"], grid: tuple[int, ...]) -> Bool[Tensor, "n h w"]:
    """A token is redrawn if the mask touches any of its pixels. Raises ValueError for a grid that is not an image's."""
    rows, columns = rows_and_columns(grid, "a mask of pixels")
    height, width = pixels.shape[-2:]
    if height % rows or width % columns:
        raise ValueError(f"a mask of {height} x {width} pixels cannot be divided into {rows} x {columns} tokens")
    blocks = pixels.reshape(len(pixels), rows, height // rows, columns, width // columns)
    return blocks.any(dim=4).any(dim=2)


def marked_pixels(tokens: Bool[Tensor, "n h w"], cell: tuple[int, int]) -> Bool[Tensor, "n H W"]:
    """The pixels of marked tokens; cell: height and width of a token in pixels."""
    return tokens.repeat_interleave(cell[0], 1).repeat_interleave(cell[1], 2)


def grow_mask(mask: Bool[Tensor, "H W"], pixels: int) -> Bool[Tensor, "H W"]:
    """Extend the mask by `pixels` in every direction: to remove an object, its edge must be masked too."""
    if pixels < 0:
        raise ValueError(f"a mask grows by 0 or more pixels, not {pixels}")
    for dim in (0, 1):  # by running counts, so that a wide margin takes no longer
        place = torch.arange(mask.shape[dim], device=mask.device)
        first, last = (place - pixels).clamp(min=0), (place + pixels).clamp(max=len(place) - 1)
        counts = mask.cumsum(dim, dtype=torch.int32)
        mask = mask.index_select(dim, first) | (counts.index_select(dim, last) > counts.index_select(dim, first))
    return mask


def one_mask_each(mask: Bool[Tensor, "*m H W"], images: Float[Tensor, "n c H W"]) -> Bool[Tensor, "n H W"]:
    """One mask per image, on the images' device, from one or one per image. Raises ValueError for another number."""
    if mask.ndim == 3 and len(mask) not in (1, len(images)):
        raise ValueError(f"{len(mask)} masks for {len(images)} images: give one mask, or one per image")
    return (mask if mask.ndim == 3 else mask[None]).to(images.device).expand(len(images), -1, -1)


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Bool[Tensor, "H W"]:
    """True inside the box (left, top, right, bottom), in pixels; right and bottom are not included."""
    left, top, right, bottom = box
    if not (0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]):
        raise ValueError(
            f"box {left},{top},{right},{bottom} is not inside the image of width {size[1]} and height {size[0]}; "
            "give left,top,right,bottom in pixels"
        )
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def expand_canvas(
    image: Float[Tensor, "c H W"], margins: tuple[int, int, int, int]
) -> tuple[Float[Tensor, "c h w"], Bool[Tensor, "h w"]]:
    """Place the image on a larger canvas with margins (left, top, right, bottom) in pixels, and mask the margins."""
    left, top, right, bottom = margins
    if min(margins) < 0 or max(margins) == 0:
        raise ValueError(f"margins must be non-negative with at least one positive, not {left},{top},{right},{bottom}")
    canvas = functional.pad(image, (left, right, top, bottom), value=0.5)
    mask = torch.ones(canvas.shape[-2:], dtype=torch.bool)
    mask[top : top + image.shape[1], left : left + image.shape[2]] = False
    return canvas, mask
