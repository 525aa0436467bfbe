"""Options of `mage shards`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mage.cli.options.base import Printing
from mage.cli.options.bounds import Seed
from mage.cli.options.places import Images, NewFolder


@dataclass(frozen=True, kw_only=True)
class Options(Printing):
    """Write a data set as tar shards, which any command reads, from disk or from an object store.

    Images are written in a random order, files as they are; the same images, size and seed give the same bytes. A
    stopped command goes on when it is run again.
    """

    data: Annotated[Images, tyro.conf.Positional]
    """folder of images, data set by name ({DATASETS}), or other shards"""
    out: NewFolder
    """folder for the shards and their indices; in it train/ and test/ if the data has these splits"""
    size: str = "500MB"
    """largest size of a shard: a number with kB, MB, GB, KiB, MiB or GiB"""
    seed: Seed = 0
    """seed of the order of the images"""
    data_root: str | None = None
    """folder with the files of a named data set"""
