"""Options of `mage explore`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mage.cli.options.base import Common
from mage.cli.options.bounds import BatchSize, Clusters, Shown
from mage.cli.options.choices import FeaturePool
from mage.cli.options.places import Images, Model, NewPage


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Write one self-contained page about a folder: a map of its images, groups, near-duplicates and outliers."""

    data: Annotated[Images, tyro.conf.Positional]
    """folder of images, tar shards (a folder of them, x-{0000..0099}.tar, s3://...), or data set by name"""
    model: Model
    """model or run folder"""
    out: NewPage = Path("folder.html")
    """the page"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    split: Literal["all", "train", "test"] = "all"
    """which part of the images, for a named data set or a folder with train/ and test/"""
    limit: Shown = 2000
    """largest number of images on the page, which grows by about 3 kB for each; of more, some are taken at even
    distances"""
    clusters: Clusters | None = None
    """number of groups; default: the one from 2 to 12 with the largest mean silhouette"""
    pool: FeaturePool = "mean"
    """mean over the tokens, the class token, both concatenated, or both of each of the last four blocks"""
    batch_size: BatchSize = 256
    """images at a time"""
