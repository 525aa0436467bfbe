"""Token caches from the user's own integers: text, audio codes, actions, images and clips of another tokenizer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from mage import atomic
from mage.data.cache_index import MOST_CODES, CacheIndex, CacheKey, labels_path, tokens_path, with_shard, write_index
from mage.data.token_cache import TokenCache
from mage.nn.grids import MOST_DIMENSIONS, check_grid


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
    Raises ValueError for other shapes or values, or if the folder is not empty.
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
    if numbers.shape != (len(array),) or numbers.min() < -1 or (len(class_names) and numbers.max() >= len(class_names)):
        raise ValueError(f"labels of shape {numbers.shape} do not number {len(array)} sequences in the given classes")
    key = CacheKey("none", "none", f"{name} train {len(array)}", array.shape[1] if views else 1, 0)
    index = CacheIndex(key, check_grid(grid), num_codes, tuple(class_names), num_images=len(array))
    folder = Path(folder)
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(array), shard_images)):
        part = slice(first, first + shard_images)
        atomic.write_bytes(tokens_path(folder, number), array[part].astype("<u2").tobytes())
        atomic.write_bytes(labels_path(folder, number), numbers[part].astype("<i4").tobytes())
        index = with_shard(index, len(array[part]))
    write_index(folder, replace(index, complete=True))
    return TokenCache(folder)
