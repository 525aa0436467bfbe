"""Dense features: the outputs of an encoder's blocks, like timm's `forward_intermediates`.

Letters: n images, l positions of a grid of any dimensions, d width.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor

MapFormat = Literal["NCHW", "NLC"]


def intermediates(
    encoder: Any, inputs: Tensor, indices: int | Sequence[int] | None, norm: bool, output_fmt: MapFormat
) -> list[Float[Tensor, "..."]]:
    """Outputs of the chosen blocks, float32, without the class position: maps (n, d, *grid) or rows (n, l, d).

    encoder: has `embed`, `blocks`, `norm`, `grid`. inputs: token grids or images, as the encoder takes them.
    indices: numbers of blocks, from 0 or, negative, from the end; one number n: the last n; None: all. In block order.
    """
    if output_fmt not in get_args(MapFormat):
        raise ValueError(f"output_fmt must be one of {', '.join(get_args(MapFormat))}, not {output_fmt!r}")
    chosen = block_numbers(len(encoder.blocks), indices)
    rows_in = inputs if inputs.is_floating_point() else inputs.flatten(1)
    x, outputs = encoder.embed(rows_in), []
    for number, block in enumerate(encoder.blocks):
        x = block(x)
        if number in chosen:
            rows = (encoder.norm(x) if norm and encoder.norm is not None else x)[:, 1:].float()
            outputs.append(rows if output_fmt == "NLC" else rows.transpose(1, 2).unflatten(2, encoder.grid))
        if number == max(chosen):
            break
    return outputs


def block_numbers(depth: int, indices: int | Sequence[int] | None) -> set[int]:
    """The block numbers that `indices` selects. Raises ValueError for a block that does not exist."""
    if not depth:
        raise ValueError("an encoder without blocks has no outputs of blocks")
    if indices is None:
        return set(range(depth))
    wanted = range(depth - indices, depth) if isinstance(indices, int) else indices
    first, last = (min(wanted), max(wanted)) if wanted else (depth, depth)
    if first < (0 if isinstance(indices, int) else -depth) or last >= depth:
        raise ValueError(f"blocks are numbered 0 to {depth - 1} (or -{depth} to -1), not {indices}")
    return {index % depth for index in wanted}
