"""`mage reproduce imagenet`: the published numbers, from the published weights and your ImageNet."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mage import atomic
from mage.cli.options import Common, check_parent, emit, note
from mage.evaluation.extractors import build_extractor
from mage.runs.record import Record, command_line, write_record
from mage.runs.reproduce import Part, ReproduceConfig, open_weights, published, reproduce, table


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Convert, generate 50,000 images, FID and IS, linear probe, few-shot: OUT/table.md beside the published values.

    The same command goes on after a stop. Fine-tuning has to be asked for: --parts finetune.
    """

    what: Annotated[Literal["imagenet"], tyro.conf.Positional] = "imagenet"
    """the paper's numbers on ImageNet-1K at 256 x 256"""
    checkpoint: Path
    """released MAGE (.pth), or a model folder"""
    tokenizer: Path | None = None
    """released tokenizer, where the checkpoint does not hold it"""
    config: Path | None = None
    """JSON with sizes that stand in no tensor, as for `mage convert`"""
    data: str
    """folder in ImageNet's layout: train/CLASS/ and val/CLASS/"""
    out: Path
    """folder for the converted model, features, numbers and the table"""
    parts: tuple[Part, ...] = ("generation", "linear", "fewshot")
    """generation, linear, fewshot, finetune"""
    num: int = 50_000
    """generated images"""
    steps: int = 20
    """network passes per image"""
    choice_temperature: float | None = None
    """default: the published one, 6 for ViT-B and 11 for ViT-L"""
    epochs: int = 90
    """epochs of the linear probe"""
    crops: Literal["random", "fixed"] = "random"
    """of the linear probe. random: as published, a pass over ImageNet per epoch; fixed: one pass, under another name"""
    extractor: str = "inception"
    """of the generated images; another than inception gives no FID, and says so in its name"""
    extractor_weights: str = ""
    """file of the extractor's weights, where it is not found by itself"""
    batch_size: int = 64
    """images at a time"""
    workers: int = 0
    """processes that read images; a full ImageNet needs as many as there are cores"""
    seed: int = 0
    """seed of everything random"""


def run(options: Options) -> None:
    """Measure what is missing, write and print the table."""
    check_parent(options.out / "table.md")
    if min(options.num, options.steps, options.epochs, options.batch_size) < 1 or not options.parts:
        raise ValueError("--num, --steps, --epochs and --batch-size must be at least 1, and --parts name something")
    config: dict[str, Any] | None = None
    if options.config is not None:
        try:
            config = json.loads(options.config.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"--config {options.config} is not readable as JSON ({type(error).__name__})") from None
    model = open_weights(
        options.checkpoint, options.tokenizer, options.out / "model", config=config, precision=options.precision,
        device=options.device,
    )  # fmt: skip
    extractor = None
    if "generation" in options.parts:
        extractor = build_extractor(options.extractor, weights=options.extractor_weights, device=model.device)
    found = reproduce(
        model,
        options.data,
        options.out,
        extractor,
        ReproduceConfig(
            parts=options.parts, num=options.num, steps=options.steps, choice_temperature=options.choice_temperature,
            batch_size=options.batch_size, epochs=options.epochs, crops=options.crops, seed=options.seed,
            workers=options.workers,
        ),
        precision=options.precision,
        device=options.device,
        say=lambda sentence: note(options, sentence),
    )  # fmt: skip
    text = table(published(model), found)
    atomic.write_text(options.out / "table.md", text)
    protocol = {
        "generation": f"{options.num:,} images, {options.steps} steps, {options.extractor}; reference: all validation "
        "images, shorter side scaled to the model's (bilinear), centre cut",
        "linear": f"LARS, {options.epochs} epochs, {options.crops} crops; test: scaled to 292/256, centre cut",
        "fewshot": "logistic regression on centre crops, 5 draws",
    }
    record = Record(command_line("mage reproduce imagenet"), options.seed, protocol, {}, found)
    write_record(options.out / "result.json", record)
    emit(options, {"out": str(options.out), "metrics": found}, text.rstrip())
