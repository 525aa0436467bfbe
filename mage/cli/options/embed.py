"""Options of `mage embed`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mage.cli.options.base import Common
from mage.cli.options.bounds import BatchSize, Workers
from mage.cli.options.choices import FeaturePool
from mage.cli.options.places import Images, Model, NewTable


@dataclass(frozen=True, kw_only=True)
class FolderOptions(Common):
    """Options of commands that list every image of a folder."""

    data: Annotated[Images, tyro.conf.Positional]
    """folder of images, tar shards (a folder of them, x-{0000..0099}.tar, s3://...), or data set by name"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    split: Literal["all", "train", "test"] = "all"
    """which part of the images, for a named data set or a folder with train/ and test/"""
    batch_size: BatchSize = 256
    """images at a time"""
    skip_broken: bool = False
    """leave out shards that are missing or damaged, and count them, instead of stopping"""
    workers: Workers = 0
    """processes that read images; 0: the main one"""


@dataclass(frozen=True, kw_only=True)
class Options(FolderOptions):
    """Write the features of every image of a folder, with file names and labels (sub-folders).

    A stopped command goes on when it is run again; images that already have a row, by name, size and time of the file,
    are left out.
    """

    model: Model
    """model or run folder"""
    out: NewTable
    """table: .csv, .parquet (needs pyarrow) or .npz"""
    pool: FeaturePool = "mean"
    """mean over the tokens, the class token, both concatenated, or both of each of the last four blocks"""
