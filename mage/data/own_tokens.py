"""Token caches from the user's own integers: text, audio codes, actions, images and clips of another tokenizer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from mage import atomic, locks
from mage.data.cache_index import MOST_CODES, CacheIndex, CacheKey, finished, read_index, write_index, write_shard
from mage.data.token_cache import TokenCache, is_cache
from mage.nn.grids import MOST_DIMENSIONS, area, check_grid


def write_tokens(
    folder: str | Path,
    tokens: np.ndarray | Tensor,
    *,
    num_codes: int,
    views: bool = False,
    labels: np.ndarray | Tensor | None = None,
    class_names: Sequence[str] = (),
    name: str = "tokens",
    shard_images: int = 16384,
) -> TokenCache:
    """Write a cache of your own integers: audio codes, characters of text, actions, grids of another tokenizer.

    tokens: from 0 to num_codes - 1, one grid per row: sequences (n, length), images (n, h, w), clips (n, t, h, w).
    views: dimension 1 counts views of the same sample, of which training draws one: (n, views, length) and so on.
    labels: (n,) indices into `class_names`, -1 for none.
    Raises ValueError for other shapes or values, or if the folder holds anything but the cache of the same call.
    """
    array = np.asarray(tokens)
    grid = array.shape[2 if views else 1 :]
    if not 1 <= len(grid) <= MOST_DIMENSIONS or not array.size or array.dtype.kind not in "iu":
        allowed = [f"(n, {'views, ' if views else ''}{sides})" for sides in ("length", "h, w", "t, h, w")]
        raise ValueError(f"tokens are integers {' or '.join(allowed)}, not {array.dtype} {array.shape}")
    if not 2 <= num_codes <= MOST_CODES or array.min() < 0 or array.max() >= num_codes:
        raise ValueError(
            f"tokens run from {array.min()} to {array.max()}; they must lie from 0 to num_codes - 1 = {num_codes - 1}, "
            f"and num_codes from 2 to {MOST_CODES}"
        )
    numbers = np.full(len(array), -1) if labels is None else np.asarray(labels)
    most = len(class_names) or 2**31
    whole = numbers.shape == (len(array),) and numbers.dtype.kind in "iu"
    if not whole or not -1 <= numbers.min() <= numbers.max() < most:
        shown = f"{numbers.dtype} {numbers.shape}"
        raise ValueError(f"labels, {shown}, do not number {len(array)} sequences in the given classes")
    key = CacheKey("none", "none", f"{name} train {len(array)}", array.shape[1] if views else 1, 0)
    index = CacheIndex(key, check_grid(grid), num_codes, tuple(class_names), num_images=len(array))
    folder = Path(folder)
    shards = []
    for first in range(0, len(array), shard_images):
        part = slice(first, first + shard_images)
        shards.append((array[part].reshape(-1, key.views, area(index.grid)), numbers[part]))
    _check_place(folder, index)
    with locks.run_lock(folder):
        _check_place(folder, index)
        if is_cache(folder) and (old := read_index(folder)).complete:
            if old != finished(index, shards):
                raise ValueError(f"{folder} holds other tokens; choose another folder")
            return TokenCache(folder)
        write_index(folder, index)
        for number, (ids, marks) in enumerate(shards):
            index = write_shard(folder, index, number, ids, marks)
            write_index(folder, index)
        write_index(folder, replace(index, complete=True))
    return TokenCache(folder)


def _check_place(folder: Path, index: CacheIndex) -> None:
    """Raise ValueError for a folder with content, unless it is a cache that the same call has made or begun."""
    if atomic.is_empty(folder):
        return
    there = read_index(folder) if is_cache(folder) else None
    if there is None or (there.key, there.grid) != (index.key, index.grid):
        raise ValueError(f"{folder} is not empty; choose another folder")
