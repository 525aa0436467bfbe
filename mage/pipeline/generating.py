"""Generation of token grids by iterative decoding, and of images larger than the model's, window by window.

Letters: n images, c channels, H W pixels, h w tokens, R C rows and columns of a large image's tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mage import device as device_policy
from mage.models import MAGETransformer
from mage.sampling.classes import Classes, class_numbers, listed
from mage.sampling.decode import UNKNOWN, OnStep
from mage.sampling.generator import ScoreAll, fill, unknown_grids
from mage.sampling.large import decode_large, encode_large, fill_large, large_token_mask, pad_to_windows
from mage.sampling.settings import SamplingConfig

OnBatch = Callable[[int], None]
"""Called with the number of images finished since the last call."""


def changed_settings(own: SamplingConfig, changes: Mapping[str, Any]) -> SamplingConfig:
    """Settings with the changes that are not None. Raises TypeError for an unknown setting."""
    known = {field.name for field in fields(SamplingConfig)}
    if unknown := set(changes) - known:
        raise TypeError(f"there is no setting {sorted(unknown)[0]!r} of sampling; there are {', '.join(known)}")
    return replace(own, **{name: value for name, value in changes.items() if value is not None})


def check_generation(
    network: MAGETransformer, settings: SamplingConfig, classes: Classes, names: tuple[str, ...]
) -> None:
    """Raise ValueError if this network does not have these classes, or guidance needs classes that it does not have."""
    if classes is not None:
        class_numbers(classes, len(listed(classes)), network.config.num_classes, names)
    if settings.guidance and not network.config.num_classes:
        raise ValueError("guidance needs a model with classes; this one was trained without: leave guidance out")


def starting_grids(
    network: MAGETransformer, n: int, start: Int[Tensor, "..."] | None, device: torch.device
) -> Int[Tensor, "n l"]:
    """Grids to complete, -1 = unknown. Raises ValueError for invalid values, or unless there are `n` grids."""
    if start is None:
        return unknown_grids(network, n, device)
    grids = network.check_ids(start.to(device, torch.int64))
    if len(grids) != n:
        raise ValueError(f"start holds {len(grids)} grids for n = {n} images: the numbers must be equal")
    if grids.min() < UNKNOWN or grids.max() >= network.vocabulary.num_codes:
        allowed = f"-1 (unknown) or codes below {network.vocabulary.num_codes}"
        raise ValueError(f"start must hold {allowed}, but runs from {int(grids.min())} to {int(grids.max())}")
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
    on_step: OnStep | None = None,
    everywhere: ScoreAll | None = None,
) -> Int[Tensor, "n l"]:
    """Predict unknown tokens; grid k has the random stream of its index, independent of the batch.

    on_step, everywhere: as for `sampling.generator.fill`; on_step is given grids as the network has them.
    """
    device = grids.device

    def told(step: int, tokens: Tensor) -> None:
        if on_step is not None:
            on_step(step, tokens.view(len(tokens), *network.grid))

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
            on_step=told,
            everywhere=everywhere,
        )
        return torch.cat(list(batches))


class EditedLarge(NamedTuple):
    """Images, and which of their tokens were redrawn."""

    images: Float[Tensor, "n c H W"]
    redrawn: Bool[Tensor, "n R C"]


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
    """Redraw the marked tokens of images larger than the model's, in sliding windows.

    grid, cell: tokens of a window, and pixels of a token, down and across. fill_window: (grid of a window, number of
    the image, number of the window) -> the grid without unknown tokens.
    """
    results, redrawn = [], []
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        padded = pad_to_windows(image, grid, cell)
        redrawn.append(large_token_mask(mask, grid, cell))
        tokens = encode_large(padded, encode, grid, cell)

        def fill_one(part: Tensor, number: int, index: int = index) -> Tensor:
            return fill_window(part, index, number)

        tokens = fill_large(tokens.masked_fill(redrawn[-1], UNKNOWN), fill_one, grid)
        decoded = decode_large(tokens, decode, grid, cell)
        results.append(decoded[:, : image.shape[1], : image.shape[2]])
    return EditedLarge(torch.stack(results), torch.stack(redrawn))
