"""`mage evaluate tokenizer`: fidelity of reconstructions, codebook usage, and information in tokens."""

from torch import nn

import mage
from mage import atomic, images, runs
from mage.cli.console import counting, emit, note, skipped_sentence
from mage.cli.options.evaluate_tokenizer import Options
from mage.data.datasets import ImageDataset, default_root, evenly, load_dataset
from mage.data.transforms import MIRRORING
from mage.evaluation.extractors import Extractor, build_extractor
from mage.evaluation.judge import Judge, JudgeConfig, judge_extractor, judge_of, judged_part
from mage.evaluation.tokenizer import TokenizerQuality, evaluate_tokenizer
from mage.evaluation.tokenizer_metrics import TokenizerProtocol
from mage.runs.inputs import trained_on
from mage.tokenizers.perceptual import build_perceptual


def run(options: Options) -> None:
    """Measure, write and print."""
    model = runs.load_tokenizer(options.tokenizer, precision=options.precision, device=options.device)
    data = options.data or trained_on(model)
    if data is None:
        raise ValueError("the data set of this tokenizer's training is unknown: give --data")
    channels = model.channels
    dataset = load_dataset(data, split=options.split, data_root=options.data_root, channels=channels)
    train = None
    if options.judge or options.histogram_probe:
        train = load_dataset(data, split="train", data_root=options.data_root, channels=channels)
    dataset = evenly(dataset, options.num)
    perceptual: nn.Module | None = None
    if options.perceptual != "none" and channels in (1, 3):
        perceptual = build_perceptual(options.perceptual, weights=options.perceptual_weights)
    extractors: list[Extractor] = []
    if channels in (1, 3):
        extractors.append(build_extractor(options.extractor, weights=options.extractor_weights, device=model.device))
    elif options.extractor != Options.extractor:
        raise ValueError(f"--extractor {options.extractor} sees grey and RGB images, not {channels} channels")
    if options.judge:
        assert train is not None
        judged = judged_part(train, channels, model.image_size)
        note(options, f"training a judge on {len(judged):,} images ...")
        extractors.append(judge_extractor(_judge(judged, model)))
    total = len(dataset) + (len(train) if train is not None and options.histogram_probe else 0)
    with counting(total, "image", options) as done:
        protocol = TokenizerProtocol(
            tuple(extractors),
            options.split,
            perceptual=perceptual,
            perceptual_name=options.perceptual,
            train=train if options.histogram_probe else None,
            batch_size=options.batch_size,
            on_images=done,
        )
        quality = evaluate_tokenizer(model, dataset, protocol)
    result = {
        "tokenizer": str(options.tokenizer),
        "data": f"{data} {options.split}",
        "images": quality.images,
        "metrics": quality.metrics,
        "protocols": quality.protocols,
        "left_out": quality.left_out,
        "warnings": quality.warnings,
        "skipped": dataset.skipped,
    }
    if options.out is not None:
        assert quality.picture is not None
        images.save_png(options.out / "side_by_side.png", quality.picture)
        atomic.write_json(options.out / "evaluation.json", result | {"details": quality.details})
    emit(options, result, _sentences(quality, options) + skipped_sentence(dataset.skipped))


def _judge(train: ImageDataset, model: mage.Mage) -> Judge:
    """A judge of the training images, mirrored if the tokenizer was trained on mirrored images."""
    augmentation = model.recipe.get("data", {}).get("transform", {}).get("augmentation", "")
    config = JudgeConfig(mirror=augmentation in MIRRORING)
    cache = default_root() / "judges"
    return judge_of(train, model.image_size, config, cache=cache, precision=model.precision, device=model.device)


def _sentences(quality: TokenizerQuality, options: Options) -> str:
    width = max(map(len, quality.metrics))
    lines = []
    for name, value in quality.metrics.items():
        protocol = f"   {quality.protocols[name]}" if name in quality.protocols else ""
        lines.append(f"{name:{width}}  {value:.6g}{protocol}")
    lines += [f"not measured: {reason}" for reason in quality.left_out]
    lines += [f"WARNING: {warning}" for warning in quality.warnings]
    if options.out is not None:
        lines.append(f"{options.out / 'side_by_side.png'}: originals, reconstructions, errors")
    return "\n".join(lines)
