"""Rank, number of processes and the exchange between them; with one process every function is the identity.

Only `mage.device.start` calls `join`. Control flow (flags and objects) is exchanged between CPUs, whatever device the
networks run on, so that it never waits for a GPU.

A process that died or stalled is noticed by the others within a bound: an exchange waits no longer than that, and one
process that works while the others wait tells them regularly that it is alive, however long its work takes.
"""

import atexit
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed
from torch.distributed.device_mesh import DeviceMesh

Result = TypeVar("Result")
Group = torch.distributed.ProcessGroup

BOUND = 600.0
"""Seconds that an exchange waits for the other processes, unless `within` says otherwise."""

PATIENCE = timedelta(days=7)
"""Longest wait for processes that each do a part of something long, such as generating images."""

BEAT = 30.0
"""Seconds between two signs of life of a process that the others wait for, or a quarter of the bound, if less."""

_alone: list[bool] = []
"""Not empty while this process works without the others."""

_groups: dict[str, Group] = {}
"""After `join`: `patient` for long waits, `turn` for flags and objects; in `within` also `exchange` for tensors."""

_bounded: dict[float, tuple[Group, Group]] = {}
"""The groups `exchange` and `turn` of every bound that has been asked for."""

_bound: list[float] = [BOUND]
"""Seconds that an exchange waits now."""


class ProcessLost(Exception):
    """Another process died or stalled, and this one waited for it in vain."""


def join(backend: str) -> None:
    """Join the process group of the launcher; further calls do nothing."""
    if torch.distributed.is_initialized():
        return
    torch.distributed.init_process_group(backend, timeout=timedelta(seconds=BOUND))
    _groups["patient"] = _new_group(PATIENCE, "gloo")
    _groups["turn"] = _new_group(timedelta(seconds=BOUND), "gloo")
    atexit.register(leave)
    # One that has nothing to do may end at once, which breaks the connections of those that are still meeting.
    torch.distributed.barrier(_groups["patient"])


def _new_group(timeout: timedelta, backend: str | None = None) -> Group:
    group = torch.distributed.new_group(backend=backend, timeout=timeout)
    assert isinstance(group, Group)
    return group


@contextmanager
def within(seconds: float, advice: Callable[[], str] = str) -> Iterator[None]:
    """Context whose exchanges wait at most so long for the other processes; then ProcessLost is raised, with advice.

    With NCCL, a process that waited in vain for a GPU's exchange is ended by PyTorch, with its own message.
    """
    if world_size() == 1:
        yield
        return
    before, bound = dict(_groups), _bound[0]
    try:
        _groups["exchange"], _groups["turn"] = _groups_within(seconds)
        _bound[0] = seconds
        yield
    except RuntimeError as error:
        if not is_broken_exchange(error):
            raise
        atexit.unregister(leave)  # leaving would wait for the lost process once more
        advised = advice()
        raise ProcessLost(
            f"process {torch.distributed.get_rank()} of {torch.distributed.get_world_size()} has lost another one, "
            f"which died, or did not answer for {seconds:g} seconds (run.timeout){'; ' * bool(advised)}{advised}"
        ) from error
    finally:
        _groups.clear()
        _groups.update(before)
        _bound[0] = bound


def _groups_within(seconds: float) -> tuple[Group, Group]:
    """The groups `exchange` and `turn` of a bound."""
    if seconds not in _bounded:  # kept to the end: cut tensors know their group, and PyTorch keeps plans for them
        _bounded[seconds] = _new_group(timedelta(seconds=seconds)), _new_group(timedelta(seconds=seconds), "gloo")
        # None goes on before all have left the store where groups meet: the first process may hold it and then stall.
        torch.distributed.barrier(_bounded[seconds][1])
    return _bounded[seconds]


def is_broken_exchange(error: RuntimeError) -> bool:
    """Whether an error means that another process is gone or silent, and not a mistake in this one."""
    sentence = str(error).lower()
    signs = ("timed out", "timeout", "connection closed", "connection reset", "broken pipe", "connection refused")
    gloo = "gloo" in sentence or isinstance(error, torch.distributed.DistError)
    return gloo and any(sign in sentence for sign in signs)


def exchange_group() -> Group | None:
    """The group for exchanging tensors; None for the default group."""
    return _groups.get("exchange")


def new_group() -> Group | None:
    """A group of its own between CPUs, for exchanges beside those of the main thread; None with one process."""
    return _new_group(timedelta(seconds=_bound[0]), "gloo") if world_size() > 1 else None


def mesh(device_type: str) -> DeviceMesh:
    """All processes in a row, for tensors that are cut among them."""
    group = exchange_group() or torch.distributed.group.WORLD
    assert group is not None
    return DeviceMesh.from_group(group, device_type)


def leave() -> None:
    """Leave the process group."""
    if torch.distributed.is_initialized():
        _groups.clear()
        _bounded.clear()
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
    torch.distributed.all_reduce(any_flag, torch.distributed.ReduceOp.MAX, group=_groups.get("turn"))
    return bool(any_flag)


def wait_for_all() -> None:
    """Return when every process has called it, however long that takes."""
    if world_size() > 1:
        torch.distributed.barrier(_groups.get("patient"))


def by_first_process(work: Callable[[], Result]) -> Result:
    """Result of `work` in the first process, while the others wait; its exception is raised in all of them.

    The result is sent to the others, so it must be picklable. Work may take days: the others wait for as long as the
    first process is alive.
    """
    if world_size() == 1:
        return work()
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            with _signs_of_life(), alone():
                outcome[0] = work()
        except Exception as error:
            outcome[1] = error
    else:
        while not _told(False):
            pass
    torch.distributed.broadcast_object_list(outcome, src=0, group=_groups.get("turn"))
    if outcome[1] is not None:
        raise outcome[1]
    result: Result = outcome[0]
    return result


@contextmanager
def _signs_of_life() -> Iterator[None]:
    """Context in which a thread tells the other processes that this one is at work; at its end, that it is done."""
    finished = threading.Event()

    def beat() -> None:
        while not finished.wait(min(BEAT, _bound[0] / 4)):
            _told(False)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        _told(True)


def _told(done: bool) -> bool:
    """Whether the first process is done, as it says itself."""
    said = torch.tensor(int(done))
    torch.distributed.broadcast(said, src=0, group=_groups.get("turn"))
    return bool(said)


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of every process's tensor, without gradient."""
    if world_size() > 1:
        tensor = tensor.contiguous()
        torch.distributed.all_reduce(tensor, group=exchange_group())
    return tensor


def largest_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The element-wise maximum over every process's tensor, without gradient."""
    if world_size() > 1:
        tensor = tensor.contiguous()
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=exchange_group())
    return tensor


def rows_of_all(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows `index` of the concatenation of all processes' tensors, which have equal lengths; without gradient."""
    if world_size() == 1:
        return tensor[index]
    local = index - rank() * len(tensor)
    mine = ((local >= 0) & (local < len(tensor))).view(-1, *[1] * (tensor.ndim - 1))
    rows = tensor[local.clamp(0, len(tensor) - 1)]
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
        torch.distributed.all_gather(parts, tensor.contiguous(), group=exchange_group())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return sum_over_processes(gradients[0].clone()).chunk(world_size())[rank()]
