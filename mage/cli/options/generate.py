"""Options of `mage generate`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mage.cli.options.base import SamplerOptions
from mage.cli.options.bounds import BatchSize, Count, Number, Processes
from mage.cli.options.choices import Form
from mage.cli.options.places import Model, NewFolder


@dataclass(frozen=True, kw_only=True)
class Options(SamplerOptions):
    """Generate images: OUT/000000.png, ... and OUT/grid.png; with a model without tokenizer: OUT/tokens.npy.

    Image k of a seed is the same for any --num, --batch-size and --processes. A stopped command can be run again.
    """

    model: Model
    """model or run folder"""
    out: NewFolder
    """folder for the images"""
    num: Annotated[Count, tyro.conf.arg(name="num-images", aliases=["--num"])] = 64
    """number of images; under torchrun, which has options of its own that begin with --n, write --num-images in full"""
    batch_size: BatchSize = 64
    """images at a time"""
    to: Form = "png"
    """png: one file per image. tar: shards of --shard-size images. features: no images, only their features by
    --extractor, for `mage evaluate generation`"""
    shard_size: Count = 1024
    """images per file for tar and features: a multiple of --batch-size"""
    extractor: str = "efflite0"
    """for --to features: efflite0, inception, timm:NAME or fidelity:NAME"""
    extractor_weights: str = ""
    """file of the extractor's weights, if they are not found automatically"""
    processes: Processes = 1
    """processes on this machine, on its GPUs in turn"""
    part: tuple[Number, Number] | None = None
    """I N: only every N-th unit, from I, for a cluster's job array; set automatically under torchrun"""
    overwrite: bool = False
    """discard images of an earlier command in --out"""
