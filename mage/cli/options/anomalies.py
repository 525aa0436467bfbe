"""Options of `mage anomalies`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mage.cli.options.base import Common
from mage.cli.options.bounds import BatchSize, Count, Seed, Several, Variants
from mage.cli.options.choices import MapPool, MapScale
from mage.cli.options.places import Images, Model, NewFolder


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Rank the images of a folder by how much they surprise the model: OUT/scores.csv and OUT/anomalies.html."""

    folder: Annotated[Images, tyro.conf.Positional]
    """folder of images of any size, read with its subfolders, or of tar shards; or a data set by name"""
    model: Model
    """model or run folder, trained on images without anomalies"""
    out: NewFolder
    """folder for the scores and the page"""
    top: Variants = 20
    """images with the highest scores, and as many with the lowest, that the page shows"""
    parts: Several = 2
    """passes per draw; each masks one part of the tokens and predicts it from the others"""
    draws: Count = 1
    """random divisions into parts to average over: steadier scores for as many times the time"""
    pool: MapPool = "top"
    """score of an image: mean of all its tokens, max of them, or top: mean of the most surprising tenth"""
    scale: MapScale = "expected"
    """expected: nats above what the network expected. none: nats. position: compared with normal images at the same
    position. error: over the tokenizer's error"""
    normal: Images | None = None
    """normal images for --scale position and error: a data set by name, or a folder; default: those that the model's
    training held out of its data"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    seed: Seed = 0
    """seed of the divisions"""
    batch_size: BatchSize = 64
    """images at a time"""
