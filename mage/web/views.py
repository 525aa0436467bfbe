"""Pictures of tokens: grids that fill in, the order in which they do, what an edit touches, heat over an image.

Letters: n images, c channels, H W pixels, h w tokens.
"""

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from mage import images
from mage.pipeline import Mage
from mage.sampling.decode import UNKNOWN
from mage.sampling.edit import marked_pixels
from mage.sampling.trace import GIVEN, LATER

SIDE = 512
"""About the length of a picture's longer side, in pixels of the screen."""
LINE = 2
"""Width of the lines between tokens, in pixels of the enlarged picture."""
GREY = 0.5
"""Of unknown tokens; of medium brightness, because it shows in light and dark pages."""
EARLY_TO_LATE = ((0.21, 0.17, 0.47), (0.16, 0.47, 0.56), (0.37, 0.73, 0.44), (0.96, 0.88, 0.27))
"""Colours of the order, darker to lighter, so that it is also seen without colours."""
MARK = (0.91, 0.35, 0.05)
"""Colour of what is redrawn."""


def sheet(pictures: Float[Tensor, "n c H W"]) -> Image.Image:
    """The images in rows, enlarged by a whole factor, transparent between them; one image without a margin."""
    if len(pictures) == 1:
        return images.to_pil(images.enlarge(pictures[0].cpu(), SIDE))
    rows = images.to_pil(images.enlarge(images.make_grid(pictures.cpu()), SIDE)).convert("RGB")
    ground = images.make_grid(torch.zeros(len(pictures), 1, *pictures.shape[2:]))  # ones between the images
    rows.putalpha(images.to_pil(images.enlarge(1 - ground, SIDE)))
    return rows


def known_so_far(model: Mage, tokens: Int[Tensor, "n h w"]) -> Float[Tensor, "n c H W"]:
    """The images that the known tokens make; pixels of unknown ones are grey.

    A decoder sees beyond a token: an unknown one enters it as the nearest known one, which disturbs the others least.
    """
    pictures = model.decode_tokens(nearest_known(tokens)).float()
    unknown = marked_pixels(tokens == UNKNOWN, model.token_size)[:, None]
    return pictures.masked_fill(unknown, GREY)


def nearest_known(tokens: Int[Tensor, "n h w"]) -> Int[Tensor, "n h w"]:
    """Unknown tokens replaced by the nearest known one of their grid; by code 0 where nothing is known."""
    rows, columns = tokens.shape[1:]
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(tokens).float()
    flat = tokens.flatten(1)
    distance = torch.cdist(places, places).expand(len(tokens), -1, -1)
    nearest = distance.masked_fill((flat == UNKNOWN)[:, None], torch.inf).argmin(dim=2)
    return flat.gather(1, nearest).clamp(min=0).view_as(tokens)


def unknown(model: Mage, count: int) -> Image.Image:
    """Images of which no token is known yet."""
    return sheet(torch.full((count, model.channels, *model.image_size), GREY))


def order(known_in: Int[Tensor, "n h w"], steps: int, cell: tuple[int, int]) -> Float[Tensor, "n 3 H W"]:
    """The step in which each token became known, as a colour; white: it was given; grey: it is still unknown."""
    place = ((known_in.float() - 1) / max(1, steps - 1)).clamp(0, 1) * (len(EARLY_TO_LATE) - 1)
    anchors = torch.tensor(EARLY_TO_LATE, device=known_in.device)
    low = place.floor().long().clamp(max=len(anchors) - 2)
    share = (place - low)[..., None]
    colours = anchors[low] * (1 - share) + anchors[low + 1] * share
    colours[known_in == GIVEN] = 1.0
    colours[known_in == LATER] = GREY
    return colours.permute(0, 3, 1, 2).repeat_interleave(cell[0], 2).repeat_interleave(cell[1], 3)


def touched(picture: Float[Tensor, "c H W"], redrawn: Bool[Tensor, "h w"], cell: tuple[int, int]) -> Image.Image:
    """The picture with the tokens that are redrawn in colour, and the lines between tokens."""
    large = images.enlarge(images.with_channels(picture, 3), SIDE)
    factor = large.shape[1] // picture.shape[1]
    side = (cell[0] * factor, cell[1] * factor)
    marked = marked_pixels(redrawn[None], side)[0]
    colour = large.new_tensor(MARK)[:, None, None]
    shown = torch.where(marked, 0.35 * large + 0.65 * colour, large)
    lines = torch.zeros_like(marked)
    for offset in range(LINE):
        lines[offset :: side[0]], lines[:, offset :: side[1]] = True, True
    return images.to_pil(torch.where(lines, 0.6 * shown + 0.2, shown))
