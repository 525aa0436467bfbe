"""`mage report`: a run as one self-contained HTML page."""

from mage.cli.options.report import Options
from mage.cli.say import emit
from mage.report import write_report


def run(options: Options) -> None:
    """Write the page and say where it is."""
    page = write_report(options.run)
    emit(options, {"report": str(page)}, f"report: {page}")
