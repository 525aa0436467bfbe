"""Options of `mage report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mage.cli.options.base import Common


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Write RUN/report.html."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder"""
