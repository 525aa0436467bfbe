"""Context and batching for inference: evaluation mode, restored afterwards, and precision."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mage import device as device_policy


@contextmanager
def evaluating(*parts: object) -> Iterator[None]:
    """Context without dropout and gradients; afterwards every module has its previous mode."""
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def in_batches(
    inputs: Tensor, batch_size: int, function: Callable[[Tensor], Tensor], precision: str, device: torch.device
) -> Tensor:
    """Apply `function` to every batch, under a precision policy, on `device`. Raises ValueError for an empty batch."""
    if len(inputs) == 0:
        raise ValueError("there are no images: the batch is empty")
    if batch_size < 1:
        raise ValueError(f"the batch size must be positive, not {batch_size}")
    results = []
    for batch in inputs.split(batch_size):
        with device_policy.autocast(precision, device):
            results.append(function(batch.to(device)))
    return torch.cat(results)
