"""Options of `mage compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mage.cli.options.base import Common


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Write one page about several runs; what `mage evaluate representations` left in them is part of it."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """run folders"""
    out: Path = Path("comparison.html")
    """the page"""
