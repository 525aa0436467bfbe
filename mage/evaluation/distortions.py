"""Operations of which corruptions consist: blurs, motion, zoom, displacement, shuffling, and fractal noise.

Each is equivalent to the library function that the public code of ImageNet-C and CIFAR-10-C calls (Hendrycks and
Dietterich 2019), for images of any number of channels, with randomness as an argument.

Letters: c channels, h w pixels, k kernel side, s side.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

Edge = Literal["nearest", "mirror"]
"""Continuation of an image beyond its edge: by its last pixel, or by its mirror image, including the last pixel."""


def filtered(x: Float[Tensor, "c h w"], kernel: Float[Tensor, "k k"]) -> Float[Tensor, "c h w"]:
    """Filter each channel; the edge is continued by its mirror image, without the last pixel."""
    reach = kernel.shape[0] // 2
    mode = "reflect" if reach < min(x.shape[-2:]) else "replicate"
    padded = functional.pad(x[:, None], [reach] * 4, mode=mode)
    return functional.conv2d(padded, kernel[None, None].to(x))[:, 0]


def disk(radius: float, blur: float) -> Float[Tensor, "k k"]:
    """The kernel of a lens out of focus: a hard disk, softened by a Gaussian of deviation `blur`.

    The softening is cut at one pixel, or at two for a radius above 8.
    """
    # The square of 17 pixels of the public code without the outer rows that are 0.
    soft, reach = (1, min(8, math.ceil(radius) + 2)) if radius <= 8 else (2, math.ceil(radius))
    place = torch.arange(-reach, reach + 1.0)
    hard = (place.square() + place[:, None].square() <= radius**2).float()
    row = (-0.5 * (torch.arange(-soft, soft + 1.0) / blur).square()).exp()
    return filtered((hard / hard.sum())[None], torch.outer(row, row) / row.sum().square())[0]


def gaussian(x: Float[Tensor, "c h w"], sigma: float, *, truncate: float, edge: Edge) -> Float[Tensor, "c h w"]:
    """Gaussian blur, cut at `truncate` deviations; sigma may be 0, or more than the image is wide."""
    rows, columns = (_blur_matrix(side, sigma, truncate, edge).to(x) for side in x.shape[-2:])
    return rows @ x @ columns.T


def _blur_matrix(side: int, sigma: float, truncate: float, edge: Edge) -> Float[Tensor, "s s"]:
    """Row i has the weights of the pixels whose mean pixel i becomes."""
    reach = int(truncate * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    weights = (-0.5 * (offsets / sigma).square()).exp() if reach else torch.ones(1)
    places = torch.arange(side)[:, None] + offsets
    if edge == "nearest":
        places = places.clamp(0, side - 1)
    else:
        places = places.remainder(2 * side)
        places = torch.where(places < side, places, 2 * side - 1 - places)
    matrix = torch.zeros(side, side)
    return matrix.scatter_add_(1, places, (weights / weights.sum()).expand(side, -1))


def motion(x: Float[Tensor, "c h w"], radius: float, sigma: float, angle: float) -> Float[Tensor, "c h w"]:
    """Blur along a line that starts at each pixel, weighted by half a Gaussian: the formula of ImageMagick.

    angle: of the line, in degrees from the horizontal.
    """
    steps = torch.arange(2 * round(radius) + 1)
    weights = (-0.5 * (steps / sigma).square()).exp()
    weights = weights / weights.sum()
    height, width = x.shape[-2:]
    blurred = torch.zeros_like(x)
    for step, weight in zip(steps.tolist(), weights.tolist(), strict=True):
        down = math.ceil(step * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(step * math.cos(math.radians(angle)) - 0.5)
        rows = (torch.arange(height) + down).clamp(0, height - 1)
        columns = (torch.arange(width) + right).clamp(0, width - 1)
        blurred += weight * x[:, rows][:, :, columns]
    return blurred


def zoomed(x: Float[Tensor, "c h w"], factor: float) -> Float[Tensor, "c h w"]:
    """The centre, enlarged bilinearly with aligned corners; factor: 1 or more."""
    height, width = x.shape[-2:]
    h, w = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - h) // 2, (width - w) // 2
    size = [max(height, round(h * factor)), max(width, round(w * factor))]
    large = functional.interpolate(
        x[None, :, top : top + h, left : left + w], size, mode="bilinear", align_corners=True
    )
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return large[0, :, top : top + height, left : left + width]


def sheared(x: Float[Tensor, "c h w"], move: Float[Tensor, "3 2"]) -> Float[Tensor, "c h w"]:
    """The affine map that moves three corners of the middle third by `move` (x, y) pixels; the edge is mirrored."""
    height, width = x.shape[-2:]
    reach = min(height, width) // 3
    corners = torch.tensor([[reach, reach], [reach, -reach], [-reach, -reach]]) + torch.tensor(
        [width // 2, height // 2]
    )
    moved = torch.cat([corners + move, torch.ones(3, 1)], dim=1)
    back = torch.linalg.solve(moved, corners.to(move))  # (x, y, 1) of the result -> (x, y) of the image
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows, torch.ones_like(rows)], dim=2).to(move) @ back
    return _sampled(x, places, last_pixel_twice=False)


def displaced(x: Float[Tensor, "c h w"], move: Float[Tensor, "2 h w"]) -> Float[Tensor, "c h w"]:
    """Take each pixel from `move` (x, y) pixels away; the edge is mirrored."""
    rows, columns = torch.meshgrid(torch.arange(x.shape[1]), torch.arange(x.shape[2]), indexing="ij")
    return _sampled(x, torch.stack([columns, rows], dim=2) + move.permute(1, 2, 0), last_pixel_twice=True)


def _sampled(x: Tensor, places: Float[Tensor, "h w 2"], *, last_pixel_twice: bool) -> Tensor:
    size = torch.tensor([x.shape[2], x.shape[1]])
    grid = (2 * places + 1) / size - 1 if last_pixel_twice else 2 * places / (size - 1) - 1
    corners = not last_pixel_twice
    return functional.grid_sample(x[None], grid[None], "bilinear", "reflection", align_corners=corners)[0]


def shuffled(x: Float[Tensor, "c h w"], move: Int[Tensor, "2 h w"], delta: int) -> Float[Tensor, "c h w"]:
    """From the last pixel to the first, replace each by the current pixel at `move` (down, right) from it.

    The official loop is meant to swap the two, but its assignment of array views copies. Rows and columns up to
    `delta`, and above the side minus `delta`, are unchanged. Moves are in [-delta, delta).
    """
    height, width = x.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    here = rows * width + columns
    inside = (rows > delta) & (rows <= height - delta) & (columns > delta) & (columns <= width - delta)
    source = torch.where(inside, here + move[0] * width + move[1], here).flatten()
    here, inside = here.flatten(), inside.flatten()
    changed = (source > here) & inside[source]  # that pixel has been replaced before: follow its source
    leads, last = torch.where(changed, source, here), here
    while not torch.equal(leads, last):
        leads, last = leads[leads], leads
    return x.flatten(1)[:, source[leads]].view_as(x)


def plasma(side: int, decay: float, generator: torch.Generator) -> Float[Tensor, "s s"]:
    """Fractal noise in [0, 1] by the diamond-square algorithm on a torus.

    side: a power of two. decay: factor by which the scale falls at each halving; noise is proportional to its square.
    """
    field, step, scale = torch.zeros(side, side), side, 100.0

    def middle(total: Tensor) -> Tensor:
        return total / 4 + scale**2 * (2 * torch.rand(total.shape, generator=generator) - 1)

    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        pairs = corners + corners.roll(-1, 0)
        field[half::step, half::step] = middle(pairs + pairs.roll(-1, 1))
        centres = field[half::step, half::step]
        field[::step, half::step] = middle(centres + centres.roll(1, 0) + corners + corners.roll(-1, 1))
        field[half::step, ::step] = middle(centres + centres.roll(1, 1) + corners + corners.roll(-1, 0))
        step, scale = half, scale / decay
    field -= field.min()
    return field / field.max().clamp(min=1e-6)
