"""Pictures of several images with words: a row for each kind, or panels side by side under their titles.

Letters: n images, c channels, h w pixels, gh gw pixels of the sheet.
"""

import math

import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mage.images import enlarge, from_pil, make_grid, to_float

TEXT = 13
"""Height of letters in pixels."""
MARK = (0.91, 0.12, 0.39)
"""Colour of marked pixels."""


def labelled_rows(
    rows: list[tuple[str, Float[Tensor, "_n c h w"]]], side: int = 64, most: int = 0
) -> Float[Tensor, "c gh gw"]:
    """Rows of images, each with its label on the left; images are enlarged to about `side` pixels.

    most: images in a row; longer rows go on in further blocks of the same labels. 0: any number.
    """
    longest = max(len(row) for _, row in rows)
    if most and longest > most:
        blocks = [
            labelled_rows([(name, row[start : start + most]) for name, row in rows if len(row) > start], side)
            for start in range(0, longest, most)
        ]
        return torch.cat(_as_wide(blocks), dim=1)
    font = ImageFont.load_default(TEXT)
    wide = 12 + max(84, *(math.ceil(font.getlength(name)) for name, _ in rows))
    factor = max(1, round(side / rows[0][1].shape[-1]))
    strips = []
    for name, row in rows:
        strip = make_grid(row.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3), columns=len(row))
        margin = Image.new("L", (wide, strip.shape[1]), 255)
        ImageDraw.Draw(margin).text((6, strip.shape[1] / 2), name, fill=40, anchor="lm", font=font)
        label = to_float(from_pil(margin, 1)).expand(strip.shape[0], -1, -1)
        strips.append(torch.cat([label.to(strip), strip], dim=2))
    return torch.cat(_as_wide(strips), dim=1)


def panels(parts: list[tuple[str, Float[Tensor, "c h w"]]], side: int = 320) -> Float[Tensor, "d gh gw"]:
    """Images of equal size side by side, each below its title; small ones are enlarged to about `side` pixels."""
    font, columns = ImageFont.load_default(TEXT), []
    for title, image in parts:
        grid = make_grid(enlarge(image, side)[None], columns=1)
        head = Image.new("L", (max(grid.shape[2], 12 + math.ceil(font.getlength(title))), 24), 255)
        ImageDraw.Draw(head).text((4, 12), title, fill=40, anchor="lm", font=font)
        label = to_float(from_pil(head, 1)).expand(grid.shape[0], -1, -1).to(grid)
        columns.append(torch.cat(_as_wide([label, grid]), dim=1))
    return torch.cat(columns, dim=2)


def marked(image: Float[Tensor, "c h w"], mask: Bool[Tensor, "h w"]) -> Float[Tensor, "3 h w"]:
    """An image of 1 or 3 channels in RGB, its marked pixels tinted."""
    colour = image.new_tensor(MARK)[:, None, None]
    rgb = image.expand(3, -1, -1)
    return torch.where(mask.to(image.device), 0.35 * rgb + 0.65 * colour, rgb)


def _as_wide(parts: list[Float[Tensor, "c _ _"]]) -> list[Float[Tensor, "c _ _"]]:
    """The parts, all as wide as the widest: white is added on the right."""
    widest = max(part.shape[2] for part in parts)
    return [
        torch.cat([part, part.new_ones(part.shape[0], part.shape[1], widest - part.shape[2])], dim=2) for part in parts
    ]
