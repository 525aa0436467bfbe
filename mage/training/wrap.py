"""Wrapper of a trained module: precision of its forward pass, and exchange of gradients between processes."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mage import distributed
from mage.device import autocast


class Wrapped(nn.Module):
    """Runs a module under a precision policy, with float32 outputs; gradients are averaged over processes."""

    def __init__(self, module: nn.Module, precision: str, device: torch.device) -> None:
        super().__init__()
        learns = any(parameter.requires_grad for parameter in module.parameters())
        if distributed.world_size() > 1 and learns:
            index = None if device.index is None else [device.index]
            module = DistributedDataParallel(module, device_ids=index)
        self.module, self._precision, self._device = module, precision, device

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """The module's outputs in float32."""
        with autocast(self._precision, self._device):
            return _in_float32(self.module(*arguments, **keywords))

    @contextmanager
    def no_exchange(self) -> Iterator[None]:
        """Context whose passes only accumulate gradients, to be exchanged later."""
        if isinstance(self.module, DistributedDataParallel):
            with self.module.no_sync():
                yield
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


def _in_float32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*map(_in_float32, output))
    if isinstance(output, tuple | list):
        return type(output)(map(_in_float32, output))
    return output


def training_mode(modules: Mapping[str, nn.Module], frozen: Iterable[nn.Module | nn.Parameter]) -> None:
    """Modules learn, with dropout; their frozen parts compute what they will compute when the model is used."""
    for module in modules.values():
        module.train()
    for part in frozen:
        if isinstance(part, nn.Module):
            part.eval()
