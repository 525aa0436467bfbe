"""Wrapper of a trained module: precision of its forward pass, and exchange of gradients between processes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from mage import distributed
from mage.device import autocast
from mage.nn.precision import in_full
from mage.training.sharding import local, shard_like


class Wrapped(nn.Module):
    """Runs a module under a precision policy, with outputs of at least float32; gradients are averaged over processes.

    A module that is sharded exchanges its gradients itself; any other is wrapped by DDP.
    """

    def __init__(
        self, module: nn.Module, precision: str, device: torch.device, *, moved: Sequence[tuple[nn.Module, str]] = ()
    ) -> None:
        """moved: parameters (owner, name) that the forward pass itself changes."""
        super().__init__()
        learns = any(parameter.requires_grad for parameter in module.parameters())
        self._moved: list[tuple[nn.Module, str, Tensor]] = []
        if isinstance(module, FSDPModule):
            self._moved = [(owner, name, getattr(owner, name)) for owner, name in moved]
        elif distributed.world_size() > 1 and learns:
            index = None if device.index is None else [device.index]
            module = DistributedDataParallel(module, device_ids=index, process_group=distributed.exchange_group())
        self.module, self._precision, self._device = module, precision, device

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """The module's outputs, in float32 if they were shorter."""
        with autocast(self._precision, self._device):
            outputs = in_full_precision(self.module(*arguments, **keywords))
        for owner, name, rows in self._moved:
            # The forward pass moved the whole parameter, which is put together anew for the next step.
            local(rows).copy_(local(shard_like(getattr(owner, name).detach(), rows)))
        return outputs

    @contextmanager
    def no_exchange(self) -> Iterator[None]:
        """Context whose passes only accumulate gradients, to be exchanged later."""
        if isinstance(self.module, DistributedDataParallel):
            with self.module.no_sync():
                yield
        elif isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(False)
            try:
                yield
            finally:
                self.module.set_requires_gradient_sync(True)
        else:
            yield


@contextmanager
def no_exchange(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """The same for several wrapped modules."""
    with ExitStack() as stack:
        for module in modules.values():
            assert isinstance(module, Wrapped)
            stack.enter_context(module.no_exchange())
        yield


def in_full_precision(output: Any) -> Any:
    """Tensors of bfloat16 as float32, those of float32 and float64 as they are; also inside of tuples."""
    if isinstance(output, Tensor):
        return in_full(output) if output.is_floating_point() else output
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*map(in_full_precision, output))
    if isinstance(output, tuple | list):
        return type(output)(map(in_full_precision, output))
    return output


def training_mode(modules: Mapping[str, nn.Module], frozen: Iterable[nn.Module | nn.Parameter]) -> None:
    """Modules learn, with dropout; their frozen parts compute what they will compute when the model is used."""
    for module in modules.values():
        module.train()
    for part in frozen:
        if isinstance(part, nn.Module):
            part.eval()
