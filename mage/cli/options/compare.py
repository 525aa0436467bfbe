"""Options of `mage compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mage.cli.options.base import Printing
from mage.cli.options.places import NewPage


@dataclass(frozen=True, kw_only=True)
class Options(Printing):
    """Write one page about several runs, with the results of `mage evaluate representations` in them."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """run folders"""
    out: NewPage = Path("comparison.html")
    """the page"""
