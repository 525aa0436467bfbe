"""Rank, number of processes and the exchange between them; with one process every function is the identity.

Only `mage.device.start` calls `join`. Control flow (flags and objects) is exchanged between CPUs, whatever device the
networks run on, so that it never waits for a GPU.
"""

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed

Result = TypeVar("Result")

PATIENCE = timedelta(days=7)
"""Longest wait for a process that prepares something for all, such as a token cache; if one fails, all end."""

_alone: list[bool] = []
"""Not empty while this process works without the others."""

_control: dict[str, torch.distributed.ProcessGroup] = {}
"""The process group for control flow, after `join`."""


def join(backend: str) -> None:
    """Join the process group of the launcher; further calls do nothing."""
    if torch.distributed.is_initialized():
        return
    torch.distributed.init_process_group(backend)
    group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, torch.distributed.ProcessGroup)
    _control["group"] = group
    atexit.register(leave)
    # One that has nothing to do may end at once, which breaks the connections of those that are still meeting.
    torch.distributed.barrier(group)


def leave() -> None:
    """Leave the process group."""
    if torch.distributed.is_initialized():
        _control.clear()
        torch.distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return torch.distributed.get_rank() if _together() else 0


def world_size() -> int:
    """Number of processes."""
    return torch.distributed.get_world_size() if _together() else 1


def _together() -> bool:
    return torch.distributed.is_initialized() and not _alone


@contextmanager
def alone() -> Iterator[None]:
    """Context in which this process works alone, as if there were no others."""
    _alone.append(True)
    try:
        yield
    finally:
        _alone.pop()


def is_first() -> bool:
    """Whether this is the process that writes, prints and decides for all."""
    return rank() == 0


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in at least one process; all processes must call it."""
    if world_size() == 1:
        return flag
    any_flag = torch.tensor(int(flag))
    torch.distributed.all_reduce(any_flag, torch.distributed.ReduceOp.MAX, group=_control.get("group"))
    return bool(any_flag)


def wait_for_all() -> None:
    """Return when every process has called it."""
    any_process(False)


def by_first_process(work: Callable[[], Result]) -> Result:
    """Result of `work` in the first process, while the others wait; its exception is raised in all of them.

    The result is sent to the others, so it must be picklable.
    """
    if world_size() == 1:
        return work()
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            with alone():
                outcome[0] = work()
        except Exception as error:
            outcome[1] = error
    torch.distributed.broadcast_object_list(outcome, src=0, group=_control.get("group"))
    if outcome[1] is not None:
        raise outcome[1]
    result: Result = outcome[0]
    return result


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of every process's tensor, without gradient."""
    if world_size() > 1:
        tensor = tensor.contiguous()
        torch.distributed.all_reduce(tensor)
    return tensor


def largest_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The element-wise maximum over every process's tensor, without gradient."""
    if world_size() > 1:
        tensor = tensor.contiguous()
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return tensor


def rows_of_all(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows `index` of the concatenation of all processes' tensors, which have equal lengths; without gradient."""
    if world_size() == 1:
        return tensor[index]
    local = index - rank() * len(tensor)
    mine = (local >= 0) & (local < len(tensor))
    rows = tensor[local.clamp(0, len(tensor) - 1)]
    mine = mine.view(-1, *[1] * (tensor.ndim - 1))
    return sum_over_processes(torch.where(mine, rows, torch.zeros_like(rows)))


def mean_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """The mean of every process's tensor; averaged over processes, its gradients equal those of a single process."""
    if world_size() == 1:
        return tensor
    mean: torch.Tensor = _Mean.apply(tensor)
    return mean


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """The tensors of all processes, concatenated in order of rank; gradients flow back to each of them.

    All must have one shape. Because processes average their gradients, each must multiply its loss by the number of
    processes, or compute its part of a mean over all: then the result is that of a single process.
    """
    if world_size() == 1:
        return tensor
    gathered: torch.Tensor = _Gather.apply(tensor)
    return gathered


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
        return sum_over_processes(tensor.clone()) / world_size()

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        # Every process computes the same loss from the mean. The gradient of this process's tensor is 1/n of the
        # mean's, and averaging gradients over the processes divides by n once more, so that one division is undone.
        return gradients[0]


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
