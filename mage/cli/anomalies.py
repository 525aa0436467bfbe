"""`mage anomalies`: the images of a folder, ranked by how much they surprise a model, as a table and a page."""

from dataclasses import asdict
from pathlib import Path

import mage
from mage.cli.console import counting, emit, note, skipped_sentence
from mage.cli.options.anomalies import Options
from mage.data.datasets import DATASETS, ImageDataset, evenly, load_dataset
from mage.data.loaders import NoneReadable
from mage.data.named_images import NamedImages, named_images
from mage.data.names import is_folder
from mage.evaluation.anomaly import Normal, Scoring
from mage.report.anomalies import AnomalyPage, Shown, write_anomalies
from mage.runs.anomalies import MOST_NORMAL, Scored, measure_normal, pictures, rank_images, write_scores
from mage.runs.inputs import data_of_model, trained_on
from mage.sampling.surprise import check_parts


def run(options: Options) -> None:
    """Score, write and print."""
    table, page = options.out / "scores.csv", options.out / "anomalies.html"
    model = mage.load(options.model, precision=options.precision, device=options.device)
    check_parts(model.require_generator().grid, options.parts, options.draws)
    folder = (
        Path(options.folder).expanduser().resolve() if is_folder(options.folder, DATASETS.names()) else options.folder
    )
    dataset = named_images(folder, data_root=options.data_root, channels=model.channels)
    scoring = Scoring(options.parts, options.draws, options.seed, options.pool, options.scale)
    normal = _normal(options, model, scoring) if options.scale in COMPARED else None
    with counting(len(dataset), "image", options) as done:
        ranked = rank_images(model, dataset, scoring, normal, batch_size=options.batch_size, on_images=done)
    names = [dataset.file(index) for index in range(len(dataset))]
    write_scores(table, ranked, names)
    count = min(options.top, len(ranked))
    high, low = ranked[:count], ranked[::-1][: min(options.top, len(ranked) - count)]
    ranks = {image.index: rank for rank, image in enumerate(ranked, 1)}
    write_anomalies(
        AnomalyPage(
            str(folder),
            str(options.model),
            _method(scoring),
            "on the scale of the score" if options.scale in COMPARED else "nats",
            [image.score for image in ranked],
            _shown(model, dataset, high, scoring, normal, ranks),
            _shown(model, dataset, low, scoring, normal, ranks),
            dataset.skipped,
        ),
        page,
    )
    highest = [{"file": names[image.index], "score": image.score} for image in high]
    result = {
        "scores": str(table),
        "page": str(page),
        "images": len(ranked),
        "scoring": asdict(scoring),
        "highest": highest,
        "skipped": dataset.skipped,
    }
    first = ", ".join(f"{found['file']} ({found['score']:.3g})" for found in highest[:3])
    emit(
        options,
        result,
        f"{page}: {len(ranked):,} images, the most surprising: {first}{skipped_sentence(dataset.skipped)}",
    )


def _normal(options: Options, model: mage.Mage, scoring: Scoring) -> Normal:
    """Averages over normal images."""
    dataset = _normal_images(options, model)
    count = min(len(dataset), MOST_NORMAL)
    note(options, f"measuring {count:,} normal images ...")
    with counting(count, "image", options) as done:
        return measure_normal(model, evenly(dataset, count), scoring, batch_size=options.batch_size, on_images=done)


def _normal_images(options: Options, model: mage.Mage) -> ImageDataset:
    if options.normal is not None and is_folder(options.normal, DATASETS.names()):
        return load_dataset(Path(options.normal), split="all", channels=model.channels)
    if options.normal is not None:
        return load_dataset(options.normal, data_root=options.data_root, channels=model.channels)
    data = trained_on(model)
    if data is None:
        raise ValueError(f"the data set of this model's training is unknown: give --normal for --scale {options.scale}")
    try:
        return data_of_model(model, data, options.data_root).validation
    except ValueError as error:
        raise ValueError(f"{error}; --normal takes other images without anomalies") from None


def _shown(
    model: mage.Mage,
    dataset: NamedImages,
    chosen: list[Scored],
    scoring: Scoring,
    normal: Normal | None,
    ranks: dict[int, int],
) -> list[Shown]:
    """Pictures of the chosen images. ranks: by their numbers in the data set."""
    if not chosen:
        return []
    try:
        drawn = pictures(model, dataset, chosen, scoring, normal)
    except NoneReadable:  # they were readable when they were scored
        return []
    return [
        Shown(dataset.file(image.index), ranks[image.index], image.score, pixels, heat)
        for image, pixels, heat in zip(*drawn, strict=True)
    ]


COMPARED = ("position", "error")
"""Scales that compare with normal images."""
POOLS = {
    "mean": "the mean over its tokens",
    "max": "the most surprising of its tokens",
    "top": "the mean of the most surprising tenth of its tokens",
}
SCALES = {
    "expected": ", less what the network expected it to be: the entropy of its prediction",
    "none": "",
    "position": ", in standard deviations from the mean of normal images at the same position",
    "error": ", divided by the error of the tokenizer's reconstruction there plus that of normal images",
}


def _method(scoring: Scoring) -> str:
    """How an image was scored, as a sentence."""
    draws = f", averaged over {scoring.draws} divisions into parts" if scoring.draws > 1 else ""
    return (
        f"The surprise of a token is -ln p given the tokens of the other parts ({scoring.parts} parts{draws})"
        f"{SCALES[scoring.scale]}; the score of an image is {POOLS[scoring.pool]}. scores.csv has all of them."
    )
