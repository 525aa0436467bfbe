"""What a model draws: grids by iterative decoding, and images larger than its own, window by window.

Letters: n images, c channels, H W pixels, h w tokens, R C rows and columns of a large image's tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mage import device as device_policy
from mage import rng
from mage.masking import mask_from_noise
from mage.models import MAGETransformer
from mage.sampling.classes import Classes, class_numbers, listed
from mage.sampling.decode import UNKNOWN
from mage.sampling.edit import token_mask
from mage.sampling.generator import fill, unknown_grids
from mage.sampling.large import decode_large, encode_large, fill_large, pad_to_windows
from mage.sampling.settings import SamplingConfig

OnBatch = Callable[[int], None]
"""Called with the number of images finished since the last call."""


def changed_settings(own: SamplingConfig, changes: Mapping[str, Any]) -> SamplingConfig:
    """Settings with some changes, None for none. Raises TypeError for a name that is no setting."""
    known = {field.name for field in fields(SamplingConfig)}
    if unknown := set(changes) - known:
        raise TypeError(f"there is no setting {sorted(unknown)[0]!r} of sampling; there are {', '.join(known)}")
    return replace(own, **{name: value for name, value in changes.items() if value is not None})


def check_generation(
    network: MAGETransformer, settings: SamplingConfig, classes: Classes, names: tuple[str, ...]
) -> None:
    """Raise ValueError if this network cannot draw these classes, or cannot be guided."""
    if classes is not None:
        class_numbers(classes, len(listed(classes)), network.config.num_classes, names)
    if settings.guidance and not network.config.num_classes:
        raise ValueError("guidance needs a model with classes; this one was trained without")


def starting_grids(
    network: MAGETransformer, n: int, start: Int[Tensor, "..."] | None, device: torch.device
) -> Int[Tensor, "n l"]:
    """Grids to complete, -1 = unknown. Raises ValueError for values and numbers that do not fit."""
    if start is None:
        return unknown_grids(network, n, device)
    grids = network.check_ids(start.to(device, torch.int64))
    if len(grids) != n:
        raise ValueError(f"start holds {len(grids)} grids, {n} were asked for")
    if grids.min() < UNKNOWN or grids.max() >= network.vocabulary.num_codes:
        raise ValueError(f"start must hold -1 for unknown or codes below {network.vocabulary.num_codes}")
    return grids


def complete(
    network: MAGETransformer,
    grids: Int[Tensor, "n l"],
    settings: SamplingConfig,
    *,
    indices: range,
    seed: int,
    batch_size: int,
    classes: Int[Tensor, " n"] | None,
    precision: str,
    on_batch: OnBatch | None,
) -> Int[Tensor, "n l"]:
    """Fill in what is unknown; grid k draws from the stream of its index, whatever the batch."""
    device = grids.device
    with device_policy.autocast(precision, device):
        batches = fill(
            device_policy.cast_for_inference(network, precision),
            grids,
            indices=indices,
            seed=seed,
            stream="sample",
            settings=settings,
            batch_size=batch_size,
            classes=None if classes is None else classes.to(device),
            on_batch=on_batch,
        )
        return torch.cat(list(batches))


def mask_tokens(ids: Int[Tensor, "n *grid"], mask_ratio: float, seed: int) -> Int[Tensor, "n *grid"]:
    """Set ceil(mask_ratio x tokens) random tokens of each grid to -1; image k has the same noise at every ratio."""
    generators = [rng.generator(seed, "mask", index) for index in range(len(ids))]
    noise = rng.uniform_rows(generators, ids[0].numel(), like=ids)
    masked = mask_from_noise(noise, mask_ratio, drop_ratio=0).masked
    return ids.masked_fill(masked.view_as(ids), UNKNOWN)


class EditedLarge(NamedTuple):
    """Images, and which of their tokens were drawn anew."""

    images: Float[Tensor, "n c H W"]
    anew: Bool[Tensor, "n R C"]


def edit_large(
    images: Float[Tensor, "n c H W"],
    masks: Bool[Tensor, "n H W"],
    grid: tuple[int, int],
    cell: tuple[int, int],
    *,
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    fill_window: Callable[[Tensor, int, int], Tensor],
) -> EditedLarge:
    """Draw the marked tokens of images larger than the model's anew, in windows that slide over them.

    grid, cell: tokens of a window, and pixels of a token, down and across. fill_window: (grid of a window, number of
    the image, number of the window) -> the grid without unknown tokens.
    """
    results, anew = [], []
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        padded = pad_to_windows(image, grid, cell)
        marked = pad_to_windows(mask[None].float(), grid, cell)[0] > 0
        anew.append(token_mask(marked[None], (marked.shape[0] // cell[0], marked.shape[1] // cell[1]))[0])
        tokens = encode_large(padded, encode, grid, cell)

        def fill_one(part: Tensor, number: int, index: int = index) -> Tensor:
            return fill_window(part, index, number)

        tokens = fill_large(tokens.masked_fill(anew[-1], UNKNOWN), fill_one, grid)
        decoded = decode_large(tokens, decode, grid, cell)
        results.append(decoded[:, : image.shape[1], : image.shape[2]])
    return EditedLarge(torch.stack(results), torch.stack(anew))
