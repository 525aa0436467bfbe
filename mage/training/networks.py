"""The networks of a run with their optimizers and moving averages: whole in every process (DDP) or cut (FSDP2)."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from mage import distributed
from mage.nn.blocks import choose_attention
from mage.training.compiling import compile_module
from mage.training.optim import WeightAverage, build_optimizer
from mage.training.run import Strategy
from mage.training.sharding import gather_module, load_module, load_optimizer, parameters_of, shard
from mage.training.task import Task
from mage.training.wrap import Wrapped


class Networks:
    """A task's modules on a device, ready to be trained; `wrapped` are those that the task's losses call."""

    def __init__(
        self, task: Task, device: torch.device, *, precision: str, compiled: bool = False, strategy: Strategy = "ddp"
    ) -> None:
        self._task, self._device = task, device
        self.wrapped: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.averages: dict[str, WeightAverage] = {}
        self._in_one_piece: dict[str, nn.Module] = {}  # copies of modules that are cut, in the first process
        for name, module in task.modules.items():
            module.to(device).requires_grad_(True)
            for part in task.frozen:
                part.requires_grad_(False)
            choose_attention(module, device)
            if task.optim[name].ema_decay:
                self.averages[name] = WeightAverage(module, task.optim[name].ema_decay)
            cut = strategy == "fsdp" and distributed.world_size() > 1 and name not in task.kept_whole
            if cut and distributed.is_first():
                self._in_one_piece[name] = copy.deepcopy(module).cpu().requires_grad_(False)
            if compiled:
                compile_module(module, whole=task.one_graph and not cut)
            if cut:
                shard(module, device)
                if name in self.averages:
                    shard(self.averages[name].module, device)
            self.optimizers[name] = build_optimizer(module, task.optim[name], precision)
            self.wrapped[name] = Wrapped(module, precision, device, moved=task.moved.get(name, ()))

    def averaged(self) -> dict[str, nn.Module]:
        """The modules to validate and export: their moving averages, if they have one; all processes must call it.

        Those that are cut are put together in the first process, and must not be called in others.
        """
        modules = {}
        for name, module in self._task.modules.items():
            modules[name] = self.averages[name].module if name in self.averages else module
            if isinstance(modules[name], FSDPModule):
                whole = self._in_one_piece.get(name)
                gather_module(modules[name], whole)
                modules[name] = modules[name] if whole is None else whole.to(self._device)
        return modules

    def put_away(self) -> None:
        """Free the memory of what `averaged` put together."""
        for module in self._in_one_piece.values():
            module.cpu()

    def state(self) -> dict[str, Any]:
        """Weights, optimizers and averages, cut as they are."""
        return {
            "modules": {name: module.state_dict() for name, module in self._task.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
        }

    def parameters(self) -> dict[str, list[torch.Tensor]]:
        """Each optimizer's parameters, in the order of its state."""
        return {name: parameters_of(optimizer) for name, optimizer in self.optimizers.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state, whose tensors may be whole, or cut in the same way."""
        for name, module in self._task.modules.items():
            load_module(module, state["modules"][name])
            load_optimizer(self.optimizers[name], state["optimizers"][name])
            if name in self.averages:
                load_module(self.averages[name], state["averages"][name])
