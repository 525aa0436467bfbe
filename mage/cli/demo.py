"""`mage demo`: all steps from images to a report, on digits that come with the installation."""

import shutil
import time
from dataclasses import replace

import torch

import mage
from mage import distributed, runs
from mage.cli.arguments import choice_of, launch_of
from mage.cli.console import check_parent, counting, emit, note
from mage.cli.options.demo import Options
from mage.recipes import Recipe, resolve
from mage.report import write_report
from mage.runs.inputs import training_data
from mage.runs.record import Record, command_line, write_record
from mage.runs.showcase import Showcase
from mage.training.checkpoint import newest_checkpoint
from mage.training.run import TrainResult

PARALLEL = True


def run(options: Options) -> None:
    """Every step of the library, in order."""
    check_parent(options.out / "report.html")
    recipe, launch = resolve(choice_of(options)), launch_of(options)
    launch = replace(launch, resume=newest_checkpoint(launch.out) is not None)
    start, timings = time.perf_counter(), {}
    if slow := advice(recipe, launch.resolved_precision(), launch.start()):
        note(options, slow)
    note(options, "1 of 5: train the tokenizer")
    result = runs.train_tokenizer(recipe, launch.inside("tokenizer"))
    timings["train_tokenizer"] = result.seconds
    note(options, "2 of 5: encode every image once")
    tokenizer = runs.load_tokenizer(launch.out / "tokenizer", precision=options.precision, device=options.device)
    begin = time.perf_counter()
    with counting(len(training_data(recipe, options.data_root).train), "image", options) as done:
        cache = runs.tokenize(recipe, launch.inside("tokens"), tokenizer, on_images=done)
    timings["tokenize"] = time.perf_counter() - begin
    note(options, "3 of 5: pre-train MAGE on the tokens")
    result = runs.pretrain(recipe, launch, tokenizer, cache=cache)
    timings["pretrain"] = result.seconds
    distributed.by_first_process(lambda: _show(options, recipe, result, timings, start))


def _show(options: Options, recipe: Recipe, result: TrainResult, timings: dict[str, float], start: float) -> None:
    note(options, "4 of 5: generate, reconstruct, edit, probe")
    model = mage.load(options.out, precision=options.precision, device=options.device)
    show = Showcase(model, recipe, options.out, options.data_root, num_samples=options.samples)
    show.run()
    timings |= show.timings
    timings["total"] = (
        timings["train_tokenizer"] + timings["pretrain"] + timings["tokenize"] + sum(show.timings.values())
    )
    timings["this_session"] = time.perf_counter() - start
    note(options, "5 of 5: write the report")
    record = Record(
        command_line("mage demo"),
        recipe.seed,
        show.protocols,
        timings,
        {**show.metrics, "pretrain_valid_loss": result.metrics["valid/loss"]},
    )
    write_record(options.out / "results.json", record)
    report = write_report(options.out)
    if options.record is not None:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.out / "results.json", options.record)
    emit(options, {"report": str(report), **record.as_dict()}, f"report: {report}")


def advice(recipe: Recipe, precision: str, device: torch.device) -> str:
    """Advice if training will be slow; "" if it will not, or is short anyway."""
    steps = {name: getattr(recipe, name).steps // 4 for name in ("tokenizer_training", "pretraining")}
    if device.type != "cpu" or precision != "float32" or min(steps.values()) < 100:
        return ""
    words = " ".join(f"--set {name}.steps={value}" for name, value in steps.items())
    return f"float32 takes about four times the README's minutes; for a quarter of them: mage demo {words}"
