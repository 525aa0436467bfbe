"""Options of `mage report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mage.cli.options.base import Common


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Write RUN/report.html, with pictures of what the model has learned: they are drawn where they are missing."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder"""
    pictures: bool = True
    """draw pictures that are missing or older than the model; --no-pictures: show only those that are there"""
    data_root: str | None = None
    """folder with the files of a named data set, for pictures of real images"""
