"""The order of an epoch: a function of (seed, epoch) and the data set, whatever the number of processes and workers.

Images that lie in shards are shuffled so that reads stay near each other: the shards come in a random order, and an
image of the k-th shard gets the key k + window x u, with u uniform in [0, 1) for each image; the epoch shows the images
by ascending keys. So at any time images of about `window` shards are mixed, and one shard after the other is entered
and left. With no more shards than `window`, and for all other data sets, every order of the images is as likely.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mage import rng


class Locality(NamedTuple):
    """Which images of a data set lie near each other."""

    shard: Int64[np.ndarray, " n"]
    """Number of each image's shard."""
    window: int
    """Shards that are mixed at a time."""


def epoch_order(count: int, locality: Locality | None, seed: int, epoch: int) -> Int64[Tensor, " n"]:
    """Numbers of the images in the order of an epoch, each once."""
    random = rng.generator(seed, "order", epoch)
    if locality is None or (shards := int(locality.shard.max(initial=-1)) + 1) <= locality.window:
        return torch.randperm(count, generator=random)
    place = torch.randperm(shards, generator=random)[torch.from_numpy(locality.shard)]
    keys = place + locality.window * torch.rand(count, generator=random, dtype=torch.float64)
    return keys.argsort(stable=True)
