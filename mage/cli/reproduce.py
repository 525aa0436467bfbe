"""`mage reproduce imagenet`: the published numbers, from the published weights and your ImageNet."""

from mage import atomic
from mage.cli.arguments import sizes_of
from mage.cli.console import emit, note
from mage.cli.options.reproduce import Options
from mage.evaluation.extractors import build_extractor
from mage.runs.record import Record, command_line, write_record
from mage.runs.reproduce import ReproduceConfig, open_weights, published, reproduce, table


def run(options: Options) -> None:
    """Measure missing parts, write and print the table."""
    if not options.parts:
        raise ValueError("--parts is empty: give one or more of generation, linear, fewshot, finetune")
    model = open_weights(
        options.checkpoint, options.tokenizer, options.out / "model", config=sizes_of(options.config),
        precision=options.precision, device=options.device,
    )  # fmt: skip
    extractor = None
    if "generation" in options.parts:
        extractor = build_extractor(options.extractor, weights=options.extractor_weights, device=model.device)
    metrics = reproduce(
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
        announce=lambda sentence: note(options, sentence),
    )  # fmt: skip
    markdown = table(published(model), metrics)
    atomic.write_text(options.out / "table.md", markdown)
    protocol = {
        "generation": f"{options.num:,} images, {options.steps} steps, {options.extractor}; reference: all validation "
        "images, shorter side scaled to the model's (bilinear), centre cut",
        "linear": f"LARS, {options.epochs} epochs, {options.crops} crops; test: scaled to 292/256, centre cut",
        "fewshot": "logistic regression on centre crops of images scaled to 292/256, 5 draws",
    }
    protocol = {part: words for part, words in protocol.items() if part in options.parts}
    record = Record(command_line("mage reproduce imagenet"), options.seed, protocol, {}, metrics)
    write_record(options.out / "result.json", record)
    emit(options, {"out": str(options.out), "metrics": metrics}, markdown.rstrip())
