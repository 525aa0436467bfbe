"""`mage demo`: the whole road from images to a report, on digits that come with the installation."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import mage
from mage.checkpoints import io
from mage.cli.options import RecipeOptions, check_parent, counting, emit, note
from mage.precision import resolve, resolve_device
from mage.recipes import runs
from mage.recipes.inputs import open_data
from mage.recipes.record import Record, command_line, write_record
from mage.recipes.schema import Recipe
from mage.recipes.showcase import Showcase
from mage.report import write_report
from mage.training.checkpoint import newest_checkpoint


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """Train a tokenizer, cache tokens, pre-train MAGE, generate, reconstruct, edit, probe, and write a report."""

    out: Path = Path("runs/demo")
    """run folder; an interrupted demo goes on where it stopped"""
    samples: int = 500
    """samples that are judged"""
    record: Path | None = None
    """also write the results to this JSON file"""


def run(options: Options) -> None:
    """Every step of the library, in order."""
    check_parent(options.out / "report.html")
    if options.samples < 100:
        raise ValueError(f"--samples must be at least 100, not {options.samples}")
    recipe, out = options.read_recipe(), options.out
    start, timings = time.perf_counter(), {}
    common = {"data_root": options.data_root, "precision": options.precision, "device": options.device}
    dataset = open_data(recipe.data.name, "train", recipe, options.data_root)
    device = resolve_device(options.device)
    precision = resolve(options.precision, device)
    note(options, f"precision {precision}, recipe {recipe.name}")
    if slow := advice(recipe, precision, device):
        note(options, slow)
    note(options, f"1 of 5: train the tokenizer on {len(dataset):,} images of {recipe.data.name}")
    again = newest_checkpoint(out / "tokenizer") is not None
    result = runs.train_tokenizer(recipe, out / "tokenizer", resume=again, progress=not options.json, **common)  # type: ignore[arg-type]
    timings["train_tokenizer"] = result.seconds
    note(options, "2 of 5: encode every image once")
    tokenizer = runs.load_tokenizer(out / "tokenizer", precision=options.precision, device=options.device)
    begin = time.perf_counter()
    with counting(len(dataset), "image", options) as done:
        cache = runs.tokenize(recipe, tokenizer, out / "tokens", data_root=options.data_root, on_images=done)
    timings["tokenize"] = time.perf_counter() - begin
    note(options, "3 of 5: pre-train MAGE on the tokens")
    again = newest_checkpoint(out) is not None
    result = runs.pretrain(recipe, tokenizer, out, cache=cache, resume=again, progress=not options.json, **common)  # type: ignore[arg-type]
    timings["pretrain"] = result.seconds
    note(options, "4 of 5: generate, reconstruct, edit, probe")
    model = mage.load(io.find_folder(out), precision=options.precision, device=options.device)
    show = Showcase(model, recipe, out, options.data_root, num_samples=options.samples)
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
    write_record(out / "results.json", record)
    report = write_report(out)
    if options.record is not None:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(out / "results.json", options.record)
    emit(options, {"report": str(report), **record.as_dict()}, f"report: {report}")


def advice(recipe: Recipe, precision: str, device: torch.device) -> str:
    """What to do where training is slow; "" where it is not, or is short anyway."""
    steps = {name: getattr(recipe, name).steps // 4 for name in ("tokenizer_training", "pretraining")}
    if device.type != "cpu" or precision != "float32" or min(steps.values()) < 100:
        return ""
    words = " ".join(f"--set {name}.steps={value}" for name, value in steps.items())
    return f"float32 takes about four times the README's minutes; for a quarter of them: mage demo {words}"
