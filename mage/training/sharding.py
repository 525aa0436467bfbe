"""Weights that lie in rows on all processes (FSDP2): cut, put together, and handled like whole ones.

Under `run.strategy=fsdp` each process keeps its rows of every parameter, gradient, optimizer state and average; a
block's whole weights exist on it only while the block computes. A tensor that is cut is a DTensor; what works
element by element can use the local rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mage import distributed


def shard(module: nn.Module, device: torch.device) -> None:
    """Cut a module's parameters among the processes, in place: every block by itself, then the rest together.

    The rest stays whole from its forward pass to its backward pass, so that a loss may read it between the two.
    """
    mesh = distributed.mesh(device.type)
    for blocks in [layer for layer in module.modules() if isinstance(layer, nn.ModuleList)]:
        for block in blocks:
            if any(True for _ in block.parameters()):
                fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh, reshard_after_forward=False)


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a tensor that is cut, as a view; another tensor itself."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All rows of a tensor that is cut; all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, cut like `like`; one that is cut already, or whose shape is another, itself."""
    if isinstance(like, DTensor) and not isinstance(tensor, DTensor) and tensor.shape == like.shape:
        tensor = tensor.to(like.device)
        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
    return tensor


def map_tensors(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """A copy of nested dictionaries and lists with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {name: map_tensors(value, change) for name, value in tree.items()}
    if isinstance(tree, list):
        return [map_tensors(value, change) for value in tree]
    return tree


def gather(tree: Any) -> Any:
    """The tree with whole tensors, on the CPU, in the first process; None in place of those that were cut in others."""
    first = distributed.is_first()

    def put_together(tensor: Tensor) -> Tensor | None:
        if not isinstance(tensor, DTensor):
            return tensor
        everything = tensor.full_tensor()
        return everything.cpu() if first else None

    return map_tensors(tree, put_together)


def gather_module(module: nn.Module, into: nn.Module | None) -> None:
    """Copy all weights of a module that is cut into the same module in one piece, which the first process has."""
    state = gather(module.state_dict())
    if into is not None:
        into.load_state_dict(state)


def load_module(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load whole or cut weights into a module, cut or not."""
    own = module.state_dict()
    module.load_state_dict({name: shard_like(value, own.get(name, value)) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """The same for an optimizer, whose states have the shapes of their parameters, or are single numbers."""
    parameters = parameters_of(optimizer)
    states = {
        index: {name: shard_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": states})


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """An optimizer's parameters in the order in which its state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def clip_gradients(module: nn.Module, largest: float) -> Tensor:
    """Scale the gradients down to a norm of at most `largest`; returns the norm they had, over all processes."""
    return whole(nn.utils.clip_grad_norm_(module.parameters(), largest))
