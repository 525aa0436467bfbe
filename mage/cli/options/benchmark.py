"""Options of `mage benchmark`."""

from dataclasses import dataclass

from mage.cli.options.base import Common
from mage.cli.options.bounds import BatchSize, Count, Minutes, Steps
from mage.cli.options.places import NewJson


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Compare the library's speed with a plain baseline, alternating in one process; random weights and images."""

    size: str = "base"
    """size of the network, on the paper's tokenizer at 256 x 256 pixels: tiny, small, base, large, huge"""
    batch_sizes: tuple[BatchSize, ...] = (4,)
    """images per call; reported ratios are the worst over these sizes"""
    paths: tuple[str, ...] = ("tokenize", "pretrain", "generate", "features", "small_pretrain")
    """what to measure; all: everything"""
    rounds: Count = 3
    """measurements of each implementation; the median is reported"""
    steps: Steps = 20
    """decoding steps per generated image"""
    gpu_minutes: Minutes | None = None
    """measure a list of jobs for a GPU, the most important first, in about so many minutes; --paths and --batch-sizes
    are then not used"""
    memory: bool = False
    """also measure the peak memory of a training step, with the largest batch"""
    profile: bool = False
    """also see which operations the time of each job goes to; on a GPU that is always done"""
    graphs: bool = False
    """also count graph breaks, recompilations and waits of a compiled training step, which takes a minute to compile"""
    record: NewJson | None = None
    """JSON file for the result, with commit, machine and command"""
