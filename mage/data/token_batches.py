"""Batches of cached tokens; batch number k is a pure function of (seed, k), so that a run can resume anywhere."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from mage import rng
from mage.data.batches import Batch
from mage.data.device_tokens import Place, place_tokens
from mage.data.token_cache import TokenCache
from mage.share import SETTING, Share

CPU = torch.device("cpu")


def token_batches(
    cache: TokenCache,
    *,
    share: Share,
    seed: int,
    start: int = 0,
    pairs: bool = False,
    device: torch.device = CPU,
    place: Place = "auto",
) -> Iterator[Batch]:
    """Endless parts of batches {"tokens", "labels"} from step `start` on; step k's batch is a function of (seed, k).

    Each epoch is a permutation of the images, each in one of its views; share: the rows that this process takes.
    pairs: a batch also holds "second", another view of each image. device: of the training; batches are made there if
    the whole cache fits, else on the host. place: overrides that choice (`place_tokens`).
    Raises ValueError if a batch is larger than the cache, or if there is only one view where two are needed.
    """
    if pairs and cache.key.views < 2:
        raise ValueError(
            f"{cache.folder} holds one view of each image, but the method contrasts two: "
            "make a new cache with --set data.views=2 or more, or train --online"
        )
    size = share.batch_size
    if size > len(cache):
        raise ValueError(
            f"a batch of {size} does not fit the {len(cache)} images of {cache.folder}; "
            f"choose a batch size from 1 to {len(cache)} ({SETTING})"
        )

    def batches() -> Iterator[Batch]:
        cached = place_tokens(cache, device, place)
        per_epoch = len(cache) // size
        order, views, epoch = torch.empty(0), torch.empty(0), -1
        for step in itertools.count(start):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                random = rng.generator(seed, "order", epoch)
                order = cached.numbers(torch.randperm(len(cache), generator=random))
                views = cached.numbers(torch.randint(cache.key.views, (len(cache),), generator=random))
            away = torch.empty(0)
            if pairs:
                random = rng.generator(seed, "second view", step)
                away = cached.numbers(torch.randint(1, cache.key.views, (size,), generator=random))
            first = step % per_epoch * size
            for part in range(share.parts):
                rows = share.rows(part)
                chosen = order[first + rows.start : first + rows.stop]
                batch: dict[str, Tensor] = {
                    "tokens": cached.tokens(chosen, views[chosen]),
                    "labels": cached.labels(chosen),
                }
                if pairs:
                    others = (views[chosen] + away[rows.start : rows.stop]) % cache.key.views
                    batch["second"] = cached.tokens(chosen, others)
                yield batch

    return batches()
