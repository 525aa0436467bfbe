"""Which of how many processes this is; on one process everything here is the identity."""

from typing import Any

import torch.distributed


def rank() -> int:
    """Number of this process, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of every process's tensor, without gradient."""
    if world_size() > 1:
        tensor = tensor.contiguous()
        torch.distributed.all_reduce(tensor)
    return tensor


def from_first_process(tensor: torch.Tensor) -> torch.Tensor:
    """The first process's tensor, everywhere."""
    if world_size() > 1:
        tensor = tensor.contiguous()
        torch.distributed.broadcast(tensor, src=0)
    return tensor


def value_from_first_process(value: Any) -> Any:
    """The first process's value, anything that can be pickled, everywhere."""
    if world_size() > 1:
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]
    return value


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """The tensors of all processes below one another, in order of rank; gradients flow back to each of them.

    All must have one shape. Where processes average their gradients, each must scale its loss by how many there are
    or take its share of a mean over all: then the result is that of one process.
    """
    if world_size() == 1:
        return tensor
    gathered: torch.Tensor = _Gather.apply(tensor)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(tensor) for _ in range(world_size())]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        gradient = sum_over_processes(gradients[0].clone())
        return gradient.chunk(world_size())[rank()]
