"""`mage evaluate representations`: probes, few-shot, corruptions, attacks and fine-tuning of one model."""

from typing import Any

import mage
from mage import atomic
from mage.cli.arguments import launch_of
from mage.cli.console import emit, note
from mage.cli.options.evaluate_representations import Options
from mage.data.datasets import train_and_test
from mage.data.transforms import evaluation_transform
from mage.evaluation.classification import classification_accuracy
from mage.evaluation.metric import Metric
from mage.evaluation.representation import Representation
from mage.evaluation.suite import build_protocols, measure_representation
from mage.recipes import FINETUNES, Choice
from mage.recipes.finetune import protocol
from mage.recipes.resolve import resolve_finetune
from mage.report.contents import intervals_of
from mage.report.glossary import describe, format_seconds, format_value
from mage.runs import finetune
from mage.runs.record import commit, machine


def run(options: Options) -> None:
    """Measure, write and print."""
    if options.finetune and options.finetune not in FINETUNES:
        raise ValueError(f"there is no recipe {options.finetune!r} of fine-tuning; there are {', '.join(FINETUNES)}")
    if options.finetune and options.out is None:
        raise ValueError("--finetune writes a run of its own into OUT/finetune: give --out")
    choice = Choice(options.finetune, None, options.finetune_set, options.data, options.seed)
    recipe = resolve_finetune(choice) if options.finetune else None  # a wrong setting is told before all is measured
    protocols = build_protocols(
        options.parts,
        {
            "corruptions": {"test_images": options.corruption_images},
            "attacks": {"test_images": options.attack_images},
        },
    )
    model = mage.load(options.model, precision=options.precision, device=options.device)
    train, test = train_and_test(options.data, data_root=options.data_root, channels=model.channels)
    cut = evaluation_transform(model.image_size) if options.cut == "paper" else None
    subject = Representation(
        model, train, test, pool=options.pool, batch_size=options.batch_size, seed=options.seed, transform=cut
    )
    result = measure_representation(subject, protocols, on_start=lambda part: note(options, f"{part} ..."))

    def keep() -> dict[str, Any]:
        values = {
            "commit": commit(),
            "machine": machine(),
            "model": str(options.model),
            "data": options.data,
            "seed": options.seed,
            **result.as_dict(),
            "skipped": [*train.skipped, *test.skipped],
        }
        if options.out is not None:
            atomic.write_json(options.out / "representations.json", values)
        return values

    values = keep()
    if recipe is not None:
        assert options.out is not None
        note(options, "finetune ...")
        result_of_run = finetune(recipe, launch_of(options).inside("finetune"), model)
        tuned = mage.load(options.out / "finetune", precision=options.precision, device=options.device)
        accuracy = classification_accuracy(tuned.classify, test, recipe.data.test_transform(tuned.image_size))
        described = protocol(recipe, result_of_run.steps, tuned.image_size)
        details = {"interval": list(accuracy.confusion.interval)}
        result.add(Metric("finetune_accuracy", accuracy.top1, described, "higher", details))
        result.timings["finetune"] = result_of_run.seconds
        values = keep()
    intervals = intervals_of(values)
    width = max((len(describe(name).title) for name in result.metrics), default=0)
    lines = [
        f"{describe(name).title:{width}}  {format_value(name, value)}{_interval(intervals.get(name))}   "
        f"{result.protocols[name]}"
        for name, value in result.metrics.items()
    ]
    lines += [f"not measured: {reason}" for reason in result.left_out]
    lines += [f"WARNING: {warning}" for warning in result.warnings]
    lines.append(f"{format_seconds(sum(result.timings.values()))} in all")
    emit(options, values, "\n".join(lines))


def _interval(bounds: tuple[float, float] | None) -> str:
    """The 95 % interval of an accuracy that has one."""
    return "" if bounds is None else f" ({100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %)"
