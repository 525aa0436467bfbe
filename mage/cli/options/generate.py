"""Options of `mage generate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mage.cli.options.base import SamplerOptions
from mage.cli.options.bounds import BatchSize, Count, Number, Processes
from mage.cli.options.choices import Form


@dataclass(frozen=True, kw_only=True)
class Options(SamplerOptions):
    """Make new images: OUT/000000.png, ... and OUT/grid.png; of a model without tokenizer: OUT/tokens.npy.

    Image k of a seed is the same whatever --num, --batch-size and --processes. The same command goes on after a stop.
    """

    model: Path
    """model or run folder"""
    out: Path
    """folder for the images"""
    num: Annotated[Count, tyro.conf.arg(name="num-images", aliases=["--num"])] = 64
    """number of images; under torchrun, whose own options begin alike, --num-images has to be written out"""
    batch_size: BatchSize = 64
    """images at a time"""
    to: Form = "png"
    """png: a file each. tar: shards of --shard-size images. features: no images, what --extractor sees in them, for
    `mage evaluate generation`"""
    shard_size: Count = 1024
    """images per file, of tar and features: a multiple of --batch-size"""
    extractor: str = "efflite0"
    """of --to features: efflite0, inception, timm:NAME or fidelity:NAME"""
    extractor_weights: str = ""
    """file of the extractor's weights, where it is not found by itself"""
    processes: Processes = 1
    """processes on this machine, on its GPUs in turn"""
    part: tuple[Number, Number] | None = None
    """I N: only every N-th unit, from I, for a cluster's job array; torchrun's processes do the same by themselves"""
    overwrite: bool = False
    """discard what an earlier command made in --out"""
