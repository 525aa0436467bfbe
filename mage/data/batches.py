"""The type of a source of training batches: a function from (first step, share) to the parts of all later steps."""

from collections.abc import Callable, Iterator

from torch import Tensor

from mage.share import Share

Batch = dict[str, Tensor]
"""Tensors with one row per image: "tokens" (n, *grid) or "images" uint8 (n, c, h, w), and if needed
"second", another view of each, and "labels" (n,)."""
Batches = Callable[[int, Share], Iterator[Batch]]
"""(first step, share of this process) -> the parts of each step, one step after the other, without end."""
