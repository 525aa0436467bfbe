"""Options of `mage plan`."""

from dataclasses import dataclass
from typing import Literal

from mage.cli.options.base import RecipeOptions
from mage.cli.options.bounds import Count, Devices

Strategy = Literal["ddp", "fsdp"]
DEVICES = ("cpu", "v100", "t4", "a100", "h100", "h200", "b200", "rtx4090")


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """Print a recipe as YAML below its images, steps, time, parameters, FLOPs and bytes of token cache."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps: time a few steps on it; v100, t4, a100, h100, h200, b200, rtx4090, or cpu with
    --devices: compute memory, network and time from its published peaks"""
    devices: Devices | None = None
    """compute for so many of them, of the published --device; default 1"""
    strategy: Strategy = "ddp"
    """ddp: each device holds everything; fsdp: weights, gradients, optimizer and average are shared among them"""
    share: float | None = None
    """share of the published peak that a step reaches; default: the share measured on an H200, of
    cpu that of two cores"""
    images: Count | None = None
    """images in the training set, including held-out ones; default: those of --data, else of the recipe's data"""
    no_measure: bool = False
    """leave out the training time on this machine, which is measured with a few steps"""
