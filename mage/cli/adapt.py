"""`mage adapt`: a model and a folder of images -> a model of these images, compared with the first one."""

from dataclasses import asdict

import mage
from mage import distributed, runs
from mage.cli.arguments import launch_of
from mage.cli.console import counting, emit, skipped_sentence
from mage.cli.options.adapt import Options
from mage.report import write_report
from mage.report.adaptation import compared
from mage.runs.adapt import Adapted

PARALLEL = True


def run(options: Options) -> None:
    """Adapt, write the report and print what changed."""
    model = mage.load(options.from_, precision=options.precision, device=options.device)
    adapted = runs.adapt(
        model,
        options.folder,
        launch_of(options),
        minutes=options.minutes,
        tokenizer=options.tokenizer,
        changes=options.set,
        seed=options.seed,
        counting=lambda size: counting(size, "image", options),
    )
    report = distributed.by_first_process(lambda: write_report(options.out))
    emit(options, {"out": str(options.out), "report": str(report), **asdict(adapted)}, _sentences(options, adapted))


def _sentences(options: Options, adapted: Adapted) -> str:
    rows = [("", "before", "after"), *compared(asdict(adapted.before), asdict(adapted.after))]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{title:{widths[0]}}  {old:>{widths[1]}}  {new:>{widths[2]}}" for title, old, new in rows]
    spent = f"{adapted.steps:,} steps; {sum(adapted.seconds.values()):.0f} s of training"
    lines += [f"WARNING: {warning}" for warning in adapted.warnings]
    lines.append(f"{options.out}: tokenizer {adapted.tokenizer}, {spent}{skipped_sentence(adapted.skipped)}")
    lines.append(f"{options.out / 'report.html'}: numbers and samples, before and after")
    return "\n".join(lines)
