"""Which of how many processes this is, and what they tell one another; on one process everything is the identity.

`join` is called by `mage.device.start` only. Numbers and objects of the control flow travel between CPUs, whatever the
networks run on, so that asking a question never waits for a GPU.
"""

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed

Result = TypeVar("Result")

PATIENCE = timedelta(days=7)
"""How long processes wait for one that makes what all need, such as a token cache; one that dies ends the others."""

_alone: list[bool] = []
"""Not empty while this process does not ask the others."""

_control: dict[str, torch.distributed.ProcessGroup] = {}
"""The group for control flow, once there is one."""


def join(backend: str) -> None:
    """Meet the other processes of the launcher; once per process."""
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
    """Part from the other processes."""
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
    """In here this process does not ask the others, as if there were none."""
    _alone.append(True)
    try:
        yield
    finally:
        _alone.pop()


def is_first() -> bool:
    """Whether this process writes, prints and decides for all."""
    return rank() == 0


def any_process(flag: bool) -> bool:
    """Whether it holds in at least one process; all of them must ask."""
    if world_size() == 1:
        return flag
    found = torch.tensor(int(flag))
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=_control.get("group"))
    return bool(found)


def wait_for_all() -> None:
    """Return when every process has come here."""
    any_process(False)


def by_first_process(work: Callable[[], Result]) -> Result:
    """What the first process makes, alone, while the others wait; an error there is an error everywhere.

    The result is sent to the others, so it must be something that can be pickled.
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
    """The largest of every process's numbers, place by place, without gradient."""
    if world_size() > 1:
        tensor = tensor.contiguous()
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return tensor


def rows_of_all(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Some rows of what all processes hold, one process after the other, equally many each; without gradient."""
    if world_size() == 1:
        return tensor[index]
    local = index - rank() * len(tensor)
    mine = (local >= 0) & (local < len(tensor))
    rows = tensor[local.clamp(0, len(tensor) - 1)]
    mine = mine.view(-1, *[1] * (tensor.ndim - 1))
    return sum_over_processes(torch.where(mine, rows, torch.zeros_like(rows)))


def mean_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """The mean of every process's tensor; where processes average their gradients, those are one process's."""
    if world_size() == 1:
        return tensor
    mean: torch.Tensor = _Mean.apply(tensor)
    return mean


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """The tensors of all processes below one another, in order of rank; gradients flow back to each of them.

    All must have one shape. Where processes average their gradients, each must scale its loss by how many there are
    or take its share of a mean over all: then the result is that of one process.
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
        # Every process computes the same loss from the mean. Its gradient to this process's tensor is 1/n of the
        # mean's, and averaging gradients over the processes divides by n again: what is left is to undo one of them.
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
