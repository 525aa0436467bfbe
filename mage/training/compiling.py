"""Whether and how a run's modules are compiled by torch.compile.

Forward and backward pass, loss included, are compiled. Clipping, optimizer and weight average are not: they are a few
fused kernels already, and torch ends a graph at every optimizer step on purpose. Compiled code is kept by torch in its
own cache, for later runs on the same machine.
"""

import importlib.util
import logging
import shutil

import torch
from torch import nn

from mage import distributed
from mage.training.run import Compile
from mage.training.task import Task

logger = logging.getLogger(__name__)

LONG_RUN = 20_000
"""Steps of a run that is worth compiling on a GPU: with steps of 10 ms, three minutes."""
COMPILERS = {"cpu": ("g++", "clang++", "c++", "cl"), "cuda": ("gcc", "clang", "cc", "cl")}
"""Programs of which torch.compile needs one, by device."""


def compiles(setting: Compile, task: Task, device: torch.device) -> bool:
    """Whether to compile, and tells the user what it costs. Raises ValueError if it is `on` and impossible here.

    auto: on a GPU, for runs of at least LONG_RUN steps of a task that is one graph.
    """
    if setting == "off":
        return False
    missing = missing_for_compiling(device)
    if setting == "auto" and (device.type != "cuda" or not task.one_graph or task.steps < LONG_RUN or missing):
        return False
    if missing:
        raise ValueError(f"run.compile=on needs {missing} for {device.type}, which is not installed; set it to off")
    if distributed.is_first():
        logger.info("compiling: the first step takes a minute or two, less from the cache; run.compile=off: no wait")
    return True


def missing_for_compiling(device: torch.device) -> str:
    """What torch.compile needs on `device` and does not find; empty if nothing is missing."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton"
    programs = COMPILERS.get(device.type, ())
    return "" if not programs or any(map(shutil.which, programs)) else f"a compiler ({', '.join(programs)})"


def compile_module(module: nn.Module, *, whole: bool) -> None:
    """Compile in place: the module as one graph, or each member of its lists of blocks, which share compiled code."""
    if whole:
        module.compile(fullgraph=True, dynamic=False)
        return
    for blocks in [layer for layer in module.modules() if isinstance(layer, nn.ModuleList)]:
        for block in blocks:
            block.compile()
