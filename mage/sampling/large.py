"""Images larger than the model's: a window slides over the token grid (as MaskGIT outpaints; in any direction).

Images are encoded in overlapping windows; each token is taken from the window in which it is most central. Unknown
tokens are predicted window by window, the window with the most known tokens first, so that new content continues known
content. Pixels of overlapping windows are blended. A window has the size that the networks were trained on.

Letters: R C rows and columns of all tokens, h w of a window, c channels, H W pixels.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from mage.nn.grids import rows_and_columns
from mage.sampling.decode import UNKNOWN
from mage.sampling.edit import token_mask


def window_starts(length: int, window: int) -> list[int]:
    """First rows (or columns) of windows that overlap by half and cover `length` tokens."""
    if length < window:
        raise ValueError(f"{length} tokens are fewer than the {window} of a window; pad the image with pad_to_windows")
    step = max(1, window // 2)
    return [*range(0, length - window, step), length - window]


def windows(size: tuple[int, int], window: tuple[int, ...]) -> list[tuple[int, int]]:
    """Top left tokens of all windows, row by row. Raises ValueError unless windows are two-dimensional."""
    rows, columns = _starts(size, window)
    return [(row, column) for row in rows for column in columns]


def _starts(size: tuple[int, int], window: tuple[int, ...]) -> tuple[list[int], list[int]]:
    rows, columns = rows_and_columns(window, "a window that slides over an image")
    return window_starts(size[0], rows), window_starts(size[1], columns)


def pad_to_windows(image: Float[Tensor, "*b H W"], window: tuple[int, int], cell: tuple[int, int]) -> Tensor:
    """Repeat the last row and column until both sides are whole tokens and at least a window; window: in tokens."""
    extra = [
        max(window[axis], -(-image.shape[axis - 2] // cell[axis])) * cell[axis] - image.shape[axis - 2]
        for axis in (0, 1)
    ]
    if not any(extra):
        return image
    flat = image.reshape(1, -1, *image.shape[-2:])
    padded = functional.pad(flat, (0, extra[1], 0, extra[0]), mode="replicate")
    return padded.reshape(*image.shape[:-2], *padded.shape[-2:])


def large_token_mask(mask: Bool[Tensor, "H W"], window: tuple[int, int], cell: tuple[int, int]) -> Bool[Tensor, "R C"]:
    """The tokens that are redrawn, of an image padded to windows; window: in tokens, cell: a token in pixels."""
    marked = pad_to_windows(mask[None].float(), window, cell)[0] > 0
    return token_mask(marked[None], (marked.shape[0] // cell[0], marked.shape[1] // cell[1]))[0]


def encode_large(
    image: Float[Tensor, "c H W"],
    encode: Callable[[Tensor], Tensor],
    window: tuple[int, int],
    cell: tuple[int, int],
) -> Int[Tensor, "R C"]:
    """Tokens of an image whose sides are whole tokens. encode: windows of pixels (n, c, ...) -> tokens (n, h, w)."""
    size = (image.shape[1] // cell[0], image.shape[2] // cell[1])
    places = windows(size, window)
    parts = encode(
        torch.stack(
            [
                image[:, r * cell[0] : (r + window[0]) * cell[0], c * cell[1] : (c + window[1]) * cell[1]]
                for r, c in places
            ]
        )
    )
    tokens = parts.new_full(size, UNKNOWN)
    best = torch.full(size, -1.0, device=parts.device)
    inside = _centrality(window, parts.device)
    for (r, c), part in zip(places, parts, strict=True):
        there = (slice(r, r + window[0]), slice(c, c + window[1]))
        better = inside > best[there]
        tokens[there] = torch.where(better, part, tokens[there])
        best[there] = torch.maximum(inside, best[there])
    return tokens


def fill_large(
    tokens: Int[Tensor, "R C"], fill: Callable[[Tensor, int], Tensor], window: tuple[int, int]
) -> Int[Tensor, "R C"]:
    """Predict unknown tokens. fill: (grid (h, w), number of the window) -> the grid without unknown tokens."""
    tokens = tokens.clone()
    rows, columns = map(torch.tensor, _starts((tokens.shape[0], tokens.shape[1]), window))
    unknown = (tokens == UNKNOWN).cpu()
    counts, number = _counts(unknown, rows, columns, window), 0
    while counts.any():
        best = int(torch.where(counts > 0, counts, unknown.numel() + 1).argmin())
        row, column = int(rows[best // len(columns)]), int(columns[best % len(columns)])
        part = _cut(tokens, (row, column), window)
        part.copy_(fill(part.clone(), number))
        _cut(unknown, (row, column), window).fill_(False)
        near, beside = (rows - row).abs() < window[0], (columns - column).abs() < window[1]  # windows that overlap it
        counts[near[:, None] & beside] = _counts(unknown, rows[near], columns[beside], window).flatten()
        number += 1
    return tokens


def _counts(marked: Bool[Tensor, "R C"], rows: Tensor, columns: Tensor, window: tuple[int, int]) -> Int[Tensor, "r c"]:
    """Marked tokens in the windows at each of these rows and columns."""
    return marked.unfold(0, window[0], 1).unfold(1, window[1], 1)[rows[:, None], columns].sum(dim=(2, 3))


def decode_large(
    tokens: Int[Tensor, "R C"],
    decode: Callable[[Tensor], Tensor],
    window: tuple[int, int],
    cell: tuple[int, int],
) -> Float[Tensor, "c H W"]:
    """Pixels; overlapping windows are weighted by centrality. decode: tokens (n, h, w) -> pixels (n, c, ...)."""
    places = windows((tokens.shape[0], tokens.shape[1]), window)
    parts = decode(torch.stack([_cut(tokens, place, window) for place in places])).float()
    weight = _centrality((window[0] * cell[0], window[1] * cell[1]), parts.device)
    size = (tokens.shape[0] * cell[0], tokens.shape[1] * cell[1])
    total, image = parts.new_zeros(size), parts.new_zeros(parts.shape[1], *size)
    for (r, c), part in zip(places, parts, strict=True):
        rows = slice(r * cell[0], (r + window[0]) * cell[0])
        columns = slice(c * cell[1], (c + window[1]) * cell[1])
        image[:, rows, columns] += weight * part
        total[rows, columns] += weight
    return image / total


def _cut(tokens: Tensor, place: tuple[int, int], window: tuple[int, int]) -> Tensor:
    return tokens[place[0] : place[0] + window[0], place[1] : place[1] + window[1]]


def _centrality(size: tuple[int, int], device: torch.device) -> Float[Tensor, "h w"]:
    """Weights from near 0 at the border to 1 in the middle."""
    sides = []
    for length in size:
        place = torch.arange(length, device=device) + 0.5
        sides.append(1 - (2 * place / length - 1).abs())
    return sides[0][:, None] * sides[1]
