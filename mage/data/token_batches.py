"""Batches of cached tokens; batch number k is a pure function of (seed, k), so that a run can resume anywhere."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mage import rng
from mage.data.token_cache import TokenCache


def token_batches(
    cache: TokenCache,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pairs: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """Endless batches {"tokens", "labels"} from number `start` on; batch k is a pure function of (seed, k).

    Each epoch is a permutation of the images, each image in one of its views; `batch_size` counts this process's share.
    pairs: a batch also holds "second", another view of each image. Raises ValueError if a batch is larger than the
    cache, or if there is only one view where two are needed.
    """
    if pairs and cache.key.views < 2:
        raise ValueError(
            f"{cache.folder} holds one view of each image and two are contrasted: "
            "cache it anew with --set data.views=2 or more, or train --online"
        )
    per_step = batch_size * world_size
    if per_step > len(cache):
        raise ValueError(f"a batch of {per_step} is larger than the {len(cache)} images; choose a smaller batch size")

    def batches() -> Iterator[dict[str, Tensor]]:
        per_epoch = len(cache) // per_step
        order, views, epoch = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), -1
        for number in itertools.count(start):
            if number // per_epoch != epoch:
                epoch = number // per_epoch
                random = rng.generator(seed, "order", epoch)
                order = torch.randperm(len(cache), generator=random).numpy()
                views = torch.randint(cache.key.views, (len(cache),), generator=random).numpy()
            first = number % per_epoch * per_step + rank * batch_size
            chosen = order[first : first + batch_size]
            batch = {"tokens": cache.tokens(chosen, views[chosen]), "labels": torch.from_numpy(cache.labels[chosen])}
            if pairs:
                random = rng.generator(seed, "second view", number, rank)
                away = torch.randint(1, cache.key.views, (batch_size,), generator=random).numpy()
                batch["second"] = cache.tokens(chosen, (views[chosen] + away) % cache.key.views)
            yield batch

    return batches()
