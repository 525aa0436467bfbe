"""Token caches of integers made elsewhere: text, audio codes, actions, grids of another tokenizer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from mage import atomic
from mage.data.token_cache import INDEX, CacheKey, TokenCache, labels_path, new_index, tokens_path


def write_tokens(
    folder: str | Path,
    tokens: np.ndarray | Tensor,
    *,
    num_codes: int,
    labels: np.ndarray | Tensor | None = None,
    class_names: Sequence[str] = (),
    name: str = "tokens",
    shard_images: int = 16384,
) -> TokenCache:
    """A cache of integers made elsewhere: codes of audio, characters of text, actions, grids of another tokenizer.

    tokens: (n, length) sequences, (n, h, w) grids, or (n, views, h, w); from 0 to num_codes - 1.
    labels: (n,) places in `class_names`, -1 where there is none.
    Raises ValueError for other shapes or values, and where the folder is not empty.
    """
    array = np.asarray(tokens)
    if array.ndim not in (2, 3, 4) or not array.size or array.dtype.kind not in "iu":
        raise ValueError(
            f"tokens are integers (n, length), (n, h, w) or (n, views, h, w), not {array.dtype} {array.shape}"
        )
    if not 2 <= num_codes <= 2**16 or array.min() < 0 or array.max() >= num_codes:
        raise ValueError(
            f"tokens run from {array.min()} to {array.max()}; they must lie from 0 to num_codes - 1 = {num_codes - 1}, "
            f"and num_codes from 2 to {2**16}"
        )
    array = {2: lambda: array[:, None, None], 3: lambda: array[:, None], 4: lambda: array}[array.ndim]()
    given = np.full(len(array), -1) if labels is None else np.asarray(labels)
    if given.shape != (len(array),) or given.min() < -1 or (len(class_names) and given.max() >= len(class_names)):
        raise ValueError(f"labels of shape {given.shape} do not number {len(array)} sequences in the given classes")
    folder = Path(folder)
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    key = CacheKey("none", "none", f"{name} train {len(array)}", array.shape[1], 0)
    index = new_index(key, (array.shape[2], array.shape[3]), num_codes, class_names)
    for number, first in enumerate(range(0, len(array), shard_images)):
        part = slice(first, first + shard_images)
        atomic.write_bytes(tokens_path(folder, number), array[part].astype("<u2").tobytes())
        atomic.write_bytes(labels_path(folder, number), given[part].astype("<i4").tobytes())
        index["shards"].append(len(array[part]))
    atomic.write_json(folder / INDEX, {**index, "num_images": len(array), "complete": True})
    return TokenCache(folder)
