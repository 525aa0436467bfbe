"""Where training gets its batches from: a function from (first step, share) to the parts of all steps from there on."""

from collections.abc import Callable, Iterator

from torch import Tensor

from mage.share import Share

Batch = dict[str, Tensor]
"""Tensors with one row per image: "tokens" (n, *grid) or "images" uint8 (n, c, h, w), and where they are needed
"second", another view of each, and "labels" (n,)."""
Batches = Callable[[int, Share], Iterator[Batch]]
"""(first step, share of this process) -> part after part of step after step, without end."""
