"""`mage compare`: several runs side by side, on one self-contained HTML page."""

from mage.cli.console import emit
from mage.cli.options.compare import Options
from mage.report.comparison import write_comparison


def run(options: Options) -> None:
    """Write the page and print its path."""
    page = write_comparison(options.runs, options.out)
    emit(options, {"comparison": str(page)}, f"comparison: {page}")
