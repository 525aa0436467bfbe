"""Whether and how a run's modules are compiled by torch.compile.

Forward and backward pass, loss included, are compiled. Clipping, optimizer and weight average are not: they are a few
fused kernels already, and torch ends a graph at every optimizer step on purpose. Compiled code is kept by torch in its
own cache, for later runs on the same machine.
"""

import importlib.util
import logging
import os
import shutil
import sysconfig
from pathlib import Path

import torch
from torch import nn

from mage import distributed
from mage.training.run import Compile
from mage.training.task import Task

logger = logging.getLogger(__name__)

LONG_RUN = 20_000
"""Steps of a run that is worth compiling on a GPU: with steps of 10 ms, three minutes."""
COMPILERS = {"cpu": ("g++", "clang++", "c++", "cl"), "cuda": ("gcc", "clang", "cl")}
"""Programs of which torch.compile needs one, by device, unless the environment names another one as CC."""
HEADER = Path(sysconfig.get_paths()["include"]) / "Python.h"
"""With it Triton compiles what starts its kernels; in a system's Python it is a package of its own."""


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
    if device.type == "cuda" and not HEADER.is_file():
        return f"Python's headers ({HEADER}; python3-dev on Debian)"
    programs = COMPILERS.get(device.type, ())
    own = [os.environ["CC"]] if device.type == "cuda" and os.environ.get("CC") else []
    found = not programs or any(map(shutil.which, (*own, *programs)))
    return "" if found else f"a compiler ({', '.join(programs)})"


def compile_module(module: nn.Module, *, whole: bool) -> None:
    """Compile in place: the module as one graph, or each member of its lists of blocks, which share compiled code."""
    if whole:
        module.compile(fullgraph=True, dynamic=False)
        return
    for blocks in [layer for layer in module.modules() if isinstance(layer, nn.ModuleList)]:
        for block in blocks:
            block.compile()
