"""What adapting a model to new images gains, by their number: `python studies/adapt.py --model cifar10 --minutes 20`.

`mage adapt` is run on 100, 1,000 and 10,000 training images of each data set, or on all of a smaller one, and the model
is measured before and after on the same test images. The default data, 5,000 handwritten digits, comes by
`pip install 'mage-vision[demo]'`; folders of images are taken as well, such as the frames of a game that
studies/crafter_frames.py writes. Finished runs and measures are not repeated. Writes results/adapt.json for the digits,
and results/adapt_NAME.json for other data, and samples of all models beside it.
"""

import argparse
import json
from functools import cached_property
from pathlib import Path

import torch
from choices import RESULTS, ask, place, stated
from measures import batches_of, without_class
from torch import Tensor

import mage
from mage import atomic, images, pictures, runs
from mage.data.datasets import DATASETS, ImageDataset, load_dataset
from mage.evaluation.extractors import build_extractor
from mage.evaluation.generation import compare
from mage.evaluation.seen import Reference
from mage.runs import Launch
from mage.runs.adapt import Adapted
from mage.runs.generation import look_at_dataset, look_at_model, random_subset
from mage.runs.production import Production
from mage.runs.record import Record, write_record

DIGITS = "mnist5k"
COUNTS = (100, 1000, 10_000)
"""Training images; of fewer, all."""
MOST_TEST = 1000
"""Test images of a distance."""
SHOWN = 12
"""Samples of each model in the picture."""
BATCH = 250
"""Images at a time while a distance is measured."""


def name_of(data: str) -> str:
    """Of a data set; of a folder its last part."""
    return Path(data).resolve().name if Path(data).is_dir() else data


class Subject:
    """A data set that the model has not seen, and the model's adaptations to parts of it."""

    def __init__(self, data: str, model: mage.Mage, options: argparse.Namespace) -> None:
        self.data, self.model, self._options = data, model, options
        self.name = name_of(data)

    def _open(self, split: str) -> ImageDataset:
        return load_dataset(self.data, split=split, data_root=self._options.data_root, channels=self.model.channels)

    @cached_property
    def counts(self) -> list[int]:
        """Numbers of training images, in ascending order."""
        total = len(self._open("train"))
        return [count for count in self._options.counts if count < total] + (
            [total] if total <= max(self._options.counts) else []
        )

    def register(self, count: int) -> str:
        """Make `count` random training images, and all test images, available under the name that is returned."""
        name = f"{self.name}-{count}"
        if name not in DATASETS:
            DATASETS.add(
                name,
                lambda split, root, channels: (
                    self._open(split) if split == "test" else random_subset(self._open(split), count)
                ),
            )
        return name

    def adapt(self, count: int) -> dict[str, float]:
        """Adapt to so many images; measures as BEFORE_OR_AFTER.METRIC, with the 95 % interval of k-NN."""
        out = self._options.out / f"{self.name}-{count}"
        launch = Launch(out, device=self._options.device)
        found = runs.adapt(self.model, self.register(count), launch, minutes=self._options.minutes)
        metrics = measures(found)
        for when, model in (("before", self.model), ("after", mage.load(out, device=self._options.device))):
            path = self._options.out / f"{self.name}-before.json" if when == "before" else out / "distance.json"
            metrics[f"{when}.fd_efflite0"] = self.distance(model, path)
        return metrics

    def distance(self, model: mage.Mage, path: Path) -> float:
        """Frechet distance of new samples to test images; kept in a file."""
        if not path.exists():
            extractor = build_extractor("efflite0", device=model.device)
            test = random_subset(self._open("test"), MOST_TEST)
            real = look_at_dataset(test, extractor, size=model.image_size, batch_size=BATCH, device=model.device)
            production = Production(self._options.samples, 1, BATCH, without_class(model), {})
            samples = look_at_model(model, production, extractor)
            compared = compare(samples, Reference.of("test", real), "efflite0").metrics
            atomic.write_json(path, next(value for name, value in compared.items() if name.startswith("fd_efflite0")))
        return float(json.loads(path.read_text()))


def measures(adapted: Adapted) -> dict[str, float]:
    """The numbers of an adaptation."""
    metrics = {"tuned": float(adapted.tokenizer == "tuned"), "steps": float(adapted.steps)}
    for when, measured in (("before", adapted.before), ("after", adapted.after)):
        metrics |= {f"{when}.{name}": value for name, value in measured.metrics.items()}
        interval = measured.details.get("knn_accuracy", {}).get("interval", ())
        metrics |= {f"{when}.knn_accuracy_{end}": value for end, value in zip(("low", "high"), interval, strict=False)}
    return metrics


PROTOCOL = {
    "validation": "Whether a tokenizer is tuned, and whether the tuned one is used, is decided by images that training "
    "held out; nothing else is chosen, and all measures are of test images.",
    "before, after": "the given and the adapted model on the same test images; k-NN among the training images that the "
    "model was adapted to",
    "masked_loss": "nats per masked token, masks as in training, at most 1,000 test images",
    "fd_efflite0": f"samples without classes, with the model's own sampler, against at most {MOST_TEST:,} test images; "
    "it is biased upwards, equally before and after",
}


def record(subject: Subject, options: argparse.Namespace, more: str) -> Record:
    """All adaptations to one data set. more: the end of the command, with the options that are not the default ones."""
    metrics: dict[str, float] = {}
    timings: dict[str, float] = {}
    for count in subject.counts:
        found = subject.adapt(count)
        metrics |= {f"{subject.name}.{count}.{name}": value for name, value in found.items()}
        stored = json.loads((options.out / f"{subject.name}-{count}" / "adapt.json").read_text())
        timings[f"{subject.name}.{count}"] = sum(stored["result"]["seconds"].values())
        print(subject.name, count, json.dumps(found), flush=True)
    command = f"python studies/adapt.py --model {Path(options.model).name} --minutes {options.minutes:g}"
    if subject.data != DIGITS:
        command += f" --data {'DATA/' if Path(subject.data).is_dir() else ''}{subject.name}"
    return Record(command + more, 0, PROTOCOL, timings, metrics)


def sheet(subject: Subject, options: argparse.Namespace) -> Tensor:
    """Test images, and samples of the model before and after, none chosen: (c, h, w)."""
    test = load_dataset(subject.data, split="test", data_root=options.data_root, channels=subject.model.channels)
    some = random_subset(test, SHOWN)
    rows = [("test images", torch.cat(list(batches_of(some, subject.model.image_size))))]
    free = without_class(subject.model) or None
    rows.append((f"samples of {Path(options.model).name}", subject.model.generate(SHOWN, seed=0, classes=free)))
    for count in subject.counts:
        model = mage.load(options.out / f"{subject.name}-{count}", device=options.device)
        free = without_class(model) or None
        rows.append((f"adapted to {count:,} images", model.generate(SHOWN, seed=0, classes=free)))
    return pictures.labelled_rows(rows, side=48)


def main() -> None:
    """Adapt, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name of a packaged model, model or run folder")
    parser.add_argument("--data", nargs="+", default=[DIGITS], help="data sets by name, or folders of images")
    parser.add_argument("--minutes", type=float, required=True, help="training time of each adaptation")
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), help="numbers of training images")
    parser.add_argument("--samples", type=int, default=1000, help="samples of a distance")
    parser.add_argument("--data-root", help="folder with the files of named data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/adapt"), help="folder of the runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    request = {"model": place(options.model), "minutes": options.minutes, "samples": options.samples}
    ask(options.out, request | {f"data {name_of(data)}": place(data) for data in options.data})
    for data in options.data:
        subject = Subject(data, mage.load(options.model, device=options.device), options)
        name = "adapt" if data == DIGITS else f"adapt_{subject.name}"
        write_record(
            options.results / f"{name}.json", record(subject, options, stated(parser, options, "counts", "samples"))
        )
        images.save_png(options.results / f"{name}.png", sheet(subject, options))


if __name__ == "__main__":
    main()
