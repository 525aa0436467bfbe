"""`mage compare`: several runs side by side, on one self-contained HTML page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mage.cli.options import Common, check_output_file, emit
from mage.report.comparison import write_comparison


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Write one page about several runs; what `mage evaluate representations` left in them is part of it."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """run folders"""
    out: Path = Path("comparison.html")
    """the page"""


def run(options: Options) -> None:
    """Write the page and say where it is."""
    check_output_file(options.out, (".html",))
    page = write_comparison(options.runs, options.out)
    emit(options, {"comparison": str(page)}, f"comparison: {page}")
