"""`mage report`: a run as one self-contained HTML page."""

from mage.cli.console import emit, note
from mage.cli.options.report import Options
from mage.report import write_report
from mage.runs.illustrate import illustrate


def run(options: Options) -> None:
    """Write the page and print its path."""
    problems: tuple[str, ...] = ()
    if options.pictures and options.run.is_dir():
        note(options, "drawing pictures of the model; --no-pictures leaves this out")
        drawn = illustrate(options.run, device=options.device, precision=options.precision, data_root=options.data_root)
        problems = drawn.problems
    page = write_report(options.run)
    lines = [f"report: {page}", *problems]
    emit(options, {"report": str(page), "problems": list(problems)}, "\n".join(lines))
