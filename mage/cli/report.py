"""`mage report`: a run as one self-contained HTML page."""

from mage.cli.console import emit
from mage.cli.options.report import Options
from mage.report import write_report


def run(options: Options) -> None:
    """Write the page and print its path."""
    page = write_report(options.run)
    emit(options, {"report": str(page)}, f"report: {page}")
