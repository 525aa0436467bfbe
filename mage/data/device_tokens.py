"""Tokens of a cache where training indexes them: in a device's memory if they fit, else on the host.

ImageNet's tokens are 656 MB per view, a hundredth of a large GPU's memory. Copied there once, a step's batch is one
indexing operation on the device, and nothing of it passes the bus. The tokens, and their order, are the same both ways.

Letters: n images, s images of the cache, v views, l tokens.
"""

import logging
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mage import distributed
from mage.data.token_cache import TokenCache
from mage.device import free_memory, move_together
from mage.nn.grids import area

logger = logging.getLogger(__name__)

LARGEST_SHARE = 0.1
"""Of the device's free memory at the start of a run: the rest is for optimizer, gradients and activations."""
Place = Literal["auto", "device", "host"]


class HostTokens:
    """Tokens in the cache's files, which the operating system keeps in memory as far as there is room."""

    def __init__(self, cache: TokenCache) -> None:
        self._cache = cache

    def numbers(self, numbers: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The same tensor."""
        return numbers

    def tokens(self, images: Int[Tensor, " n"], views: Int[Tensor, " n"]) -> Int[Tensor, "n *grid"]:
        """Tokens of the given images in the given views. Raises ValueError for damaged ones."""
        return self._cache.tokens(images.numpy(), views.numpy())

    def labels(self, images: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Labels of the given images."""
        return torch.from_numpy(self._cache.labels[images.numpy()])


class DeviceTokens:
    """All tokens and labels of a cache in a device's memory, two bytes per token."""

    def __init__(self, cache: TokenCache, device: torch.device) -> None:
        """Copies shard by shard. Raises ValueError for damaged tokens."""
        self._device, self._grid, self._views = device, tuple(cache.grid), cache.key.views
        # As int16: devices index hardly anything with unsigned words.
        self._rows = torch.empty((len(cache) * self._views, area(cache.grid)), dtype=torch.int16, device=device)
        first = 0
        for shard in cache.shards():
            rows = torch.from_numpy(np.array(shard).view(np.int16)).flatten(0, 1)
            self._rows[first : first + len(rows)] = rows.to(device)
            first += len(rows)
        self._labels = torch.from_numpy(cache.labels).to(device)

    def numbers(self, numbers: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The same numbers on the device."""
        return move_together([numbers], self._device)[0]

    def tokens(self, images: Int[Tensor, " n"], views: Int[Tensor, " n"]) -> Int[Tensor, "n *grid"]:
        """Tokens of the given images in the given views; nothing waits for the device."""
        rows = self._rows[images * self._views + views].long() & 0xFFFF
        return rows.view(-1, *self._grid)

    def labels(self, images: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Labels of the given images."""
        return self._labels[images]


def place_tokens(cache: TokenCache, device: torch.device, place: Place = "auto") -> HostTokens | DeviceTokens:
    """The cache's tokens on `device`, or on the host.

    auto: on a GPU, if they take at most LARGEST_SHARE of its free memory. On a CPU a copy would gain nothing.
    """
    if place == "auto":
        free = free_memory(device)
        place = "device" if free is not None and token_bytes(cache) <= LARGEST_SHARE * free else "host"
    if place == "host":
        return HostTokens(cache)
    if distributed.is_first():
        logger.info("%.0f MB of tokens are copied to %s, for the whole run", token_bytes(cache) / 1e6, device)
    return DeviceTokens(cache, device)


def token_bytes(cache: TokenCache) -> int:
    """Bytes of a cache's tokens and labels in a device's memory."""
    return len(cache) * (2 * cache.key.views * area(cache.grid) + 8)
