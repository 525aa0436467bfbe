"""`mage report`: a run as one self-contained HTML page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mage.cli.options import Common, emit
from mage.report import write_report


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Write RUN/report.html."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder"""


def run(options: Options) -> None:
    """Write the page and say where it is."""
    page = write_report(options.run)
    emit(options, {"report": str(page)}, f"report: {page}")
