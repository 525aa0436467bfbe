"""Finding images of a class that training never saw: `python studies/surprise.py --data-root DATA --out OUT`.

One class at a time is left out of the training images, and a tokenizer and MAGE are trained on the others. Images of
the left-out class are then to be told from images of the others, by the score of one image without any labels: how much
it surprises MAGE, against the distance to its nearest training images in features of the same model or in raw pixels,
and against the error of the tokenizer's reconstruction. The number is the AUROC: the probability that an image of the
new class has the higher score; 50 % is chance.

Every method has settings (parts, draws, pool and scale of surprise; neighbours and pooling of features). For each
left-out class they are chosen by the mean validation AUROC of the *other* left-out classes, where the images to tell
apart are validation images, which training held out, and training images of the class that was left out. Test images
measure what was chosen. With one class alone there are no others, and its own such images choose.

Digits take four to ten minutes a class on two cores, CIFAR-10 about half an hour. What is finished is not repeated, and
what was interrupted is resumed. Results of all classes in OUT are written to results/surprise.json (digits) and
results/surprise_cifar10.json.
"""

import argparse
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import mean

import torch
from choices import RESULTS, ask
from left_out import Parts, Subject, folder_of, train
from torch import Tensor

import mage
from mage import atomic, images
from mage.data.datasets import ImageDataset, evenly
from mage.data.transforms import TransformConfig
from mage.evaluation.anomaly import Maps, Normal, Scoring, auroc, maps_of, pooled, scores
from mage.evaluation.features import extract_features
from mage.runs import Launch
from mage.runs.record import Record, write_record
from mage.training.runlog import read_log

BRIEF = ("data.online_images=0", "run.checkpoint_every=200")
SUBJECTS = {
    "digits": Subject(
        "mnist5k", "mnist5k", tuple(range(10)), (*BRIEF, "tokenizer_training.steps=500", "pretraining.steps=700")
    ),
    "cifar10": Subject(
        "cifar10", "cifar10", (1, 3, 8), (*BRIEF, "tokenizer_training.steps=1500", "pretraining.steps=1000")
    ),
}
"""By the names of the results. Of CIFAR-10 automobile, cat and ship are left out: one and a half hours."""
DIVISIONS = ((2, 1), (2, 4), (4, 1), (8, 1))
"""Pairs of parts and draws."""
RECORDS = {"digits": "surprise", "cifar10": "surprise_cifar10"}
"""Names of the records."""
SURPRISE = {
    f"parts{parts}.draws{draws}.{scale}.{pool}": Scoring(parts, draws, 0, pool, scale)
    for parts, draws in DIVISIONS
    for scale in ("expected", "none", "position", "error")
    for pool in ("mean", "max", "top")
}
NEIGHBOURS = (1, 5, 20)
SETTINGS: dict[str, tuple[str, ...]] = {
    "surprise": tuple(SURPRISE),
    "knn_features": tuple(f"{pool}.k{k}" for pool in ("mean", "class") for k in NEIGHBOURS),
    "knn_pixels": tuple(f"k{k}" for k in NEIGHBOURS),
    "reconstruction": ("mean", "max", "top"),
}
"""Settings of each method, by name."""
MOST, MOST_NORMAL = 1000, 500
"""Largest numbers of images of each kind that are scored, and of those that say what is normal."""
MOST_NEIGHBOURS = 10_000
"""Largest number of training images among which neighbours are sought."""
Rows = Mapping[str, Mapping[str, float]]
"""Method -> settings -> AUROC."""


def nearest(train: Tensor, queries: Tensor, k: int) -> Tensor:
    """Mean distance of each query to its k nearest training rows."""
    return torch.cat(
        [torch.cdist(part, train).topk(k, largest=False).values.mean(dim=1) for part in queries.split(500)]
    )


class Scorer:
    """All scores of images by one model."""

    def __init__(self, model: mage.Mage, train: ImageDataset) -> None:
        self._model, self._train = model, evenly(train, MOST_NEIGHBOURS)
        self._usual = evenly(train, MOST_NORMAL)
        self._maps = cache(self._maps_of)
        self._features = cache(self._features_of)
        self._pixels = cache(self._pixels_of)

    def score(self, dataset: ImageDataset, method: str, name: str) -> Tensor:
        """One number per image of a data set, high for anomalies."""
        if method == "surprise":
            scoring = SURPRISE[name]
            usual = self._maps(self._usual, scoring.parts, scoring.draws)
            return scores(self._maps(dataset, scoring.parts, scoring.draws), scoring, Normal.of(usual))
        if method == "reconstruction":
            return pooled(self._maps(dataset, *DIVISIONS[0]).error, name)  # type: ignore[arg-type]
        k = int(name.split("k")[-1])
        if method == "knn_pixels":
            return nearest(self._pixels(self._train), self._pixels(dataset), k)
        pool = name.split(".")[0]
        return nearest(self._features(self._train, pool), self._features(dataset, pool), k)

    def _maps_of(self, dataset: ImageDataset, parts: int, draws: int) -> Maps:
        shown = self._pixels(dataset).view(len(dataset), self._model.channels, *self._model.image_size)
        return maps_of(self._model, shown, Scoring(parts, draws), batch_size=250)

    def _features_of(self, dataset: ImageDataset, pool: str) -> Tensor:
        """Of length one, so that distances are those of angles."""

        def features(pixels: Tensor) -> Tensor:
            return self._model.features(pixels, pool)  # type: ignore[arg-type]

        found = extract_features(features, dataset, TransformConfig(size=self._model.image_size))
        return torch.nn.functional.normalize(found.features, dim=1)

    def _pixels_of(self, dataset: ImageDataset) -> Tensor:
        return images.to_float(torch.stack([dataset.load(index) for index in range(len(dataset))])).flatten(1)


def validate(scorer: Scorer, known: ImageDataset, new: ImageDataset) -> dict[str, dict[str, float]]:
    """AUROC of all settings of all methods on images that choose."""
    known, new = evenly(known, MOST), evenly(new, MOST)
    return {
        method: {name: auroc(scorer.score(known, method, name), scorer.score(new, method, name)) for name in names}
        for method, names in SETTINGS.items()
    }


def choose(rows: Mapping[str, Rows], left_out: str) -> dict[str, str]:
    """The settings of each method for one left-out class: the best on average over the other classes.

    rows: validation AUROC of every class. A class alone chooses for itself.
    """
    others = [found for name, found in rows.items() if name != left_out] or list(rows.values())
    return {
        method: max(names, key=lambda name: sum(found[method][name] for found in others))
        for method, names in SETTINGS.items()
    }


def judge(scorer: Scorer, known: ImageDataset, new: ImageDataset, chosen: Mapping[str, str]) -> dict[str, float]:
    """AUROC of the chosen settings on test images."""
    known, new = evenly(known, MOST), evenly(new, MOST)
    return {
        method: auroc(scorer.score(known, method, name), scorer.score(new, method, name))
        for method, name in chosen.items()
    }


class Study:
    """The left-out classes of one data set."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.subject, self._options = name, SUBJECTS[name], options

    def folder(self, number: int) -> Path:
        """Of everything about one left-out class."""
        return folder_of(self._options.out, self.name, number)

    def finished(self) -> list[int]:
        """Classes whose settings were compared."""
        return [number for number in self.subject.classes if (self.folder(number) / "validation.json").exists()]

    def prepare(self, number: int) -> None:
        """Train without a class, and compare all settings on images that choose."""
        launch = Launch(self.folder(number), device=self._options.device, data_root=self._options.data_root)
        model = train(self.subject, number, launch, tuple(self._options.set))
        path = self.folder(number) / "validation.json"
        if not path.exists():
            parts = Parts(model, self.subject.data, number, self._options.data_root)
            atomic.write_json(path, validate(Scorer(model, parts.train), parts.known, parts.new))
        print(self.name, number, "is prepared", flush=True)

    def validation(self) -> dict[str, dict[str, dict[str, float]]]:
        """Class -> method -> settings -> AUROC on images that choose."""
        return {
            str(number): json.loads((self.folder(number) / "validation.json").read_text()) for number in self.finished()
        }

    def measured(self, number: int, chosen: dict[str, str]) -> dict[str, float]:
        """AUROC on test images; kept until others are chosen."""
        path = self.folder(number) / "test.json"
        if path.exists():
            stored = json.loads(path.read_text())
            if stored["chosen"] == chosen:
                return {method: float(value) for method, value in stored["auroc"].items()}
        model = mage.load(self.folder(number) / "mage", device=self._options.device)
        parts = Parts(model, self.subject.data, number, self._options.data_root)
        found = judge(Scorer(model, parts.train), *parts.test(), chosen)
        atomic.write_json(path, {"chosen": chosen, "auroc": found})
        return found

    def seconds(self, number: int) -> float:
        """Of training the tokenizer and MAGE."""
        logs = [read_log(self.folder(number) / part) for part in ("tokenizer", "mage")]
        return sum(max(line.get("seconds", 0.0) for line in log) for log in logs)


def report(study: Study, changes: list[str]) -> Record:
    """Everything that is finished, as a record. changes: of the settings of every training."""
    metrics, timings, name = {}, {}, study.name
    training = f"recipe {study.subject.recipe}, {' '.join([*study.subject.changes, *changes])}"
    protocol = PROTOCOL | {"training": training}
    rows = study.validation()
    tested: dict[str, dict[str, float]] = {}
    for number in study.finished():
        chosen = choose(rows, str(number))
        tested[str(number)] = study.measured(number, chosen)
        timings[f"{name}.{number}"] = study.seconds(number)
        protocol[f"chosen.{name}.{number}"] = ", ".join(f"{key}: {value}" for key, value in chosen.items())
        metrics |= {f"{name}.{number}.{method}": value for method, value in tested[str(number)].items()}
        print(name, number, tested[str(number)], protocol[f"chosen.{name}.{number}"], flush=True)
    for method, names in SETTINGS.items():
        metrics[f"{name}.mean.{method}"] = mean(found[method] for found in tested.values())
        for setting in names:
            key = f"{name}.validation.{method}.{setting}"
            metrics[key] = mean(found[method][setting] for found in rows.values())
    command = f"python studies/surprise.py --data {name} --data-root DATA"
    return Record(command + "".join(f" --set {change}" for change in changes), 0, protocol, timings, metrics)


PROTOCOL = {
    "validation": "Settings were chosen for each left-out class by the other left-out classes, on images that training "
    "held out against training images of the class that it did not see (a class alone: by its own); test images chose "
    "nothing.",
    "auroc": f"test images of the left-out class against those of the others, at most {MOST:,} of each; no score "
    "uses labels",
    "knn_features, knn_pixels": f"mean distance to the k nearest of at most {MOST_NEIGHBOURS:,} training images; "
    "features of length one; pixels in [0, 1]",
    "reconstruction": "root mean squared error of the tokenizer's reconstruction of each token's cell, pooled",
    "surprise": f"as `mage anomalies`, but that normal images are {MOST_NORMAL} of training",
}


def main() -> None:
    """Train, choose, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="folder where CIFAR-10 lies; digits come with the installation")
    parser.add_argument("--data", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="data sets")
    parser.add_argument("--only", nargs="+", type=int, help="classes to leave out, by number; default: all of them")
    parser.add_argument("--out", type=Path, default=Path("runs/surprise"), help="folder of the runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--set", action="append", default=[], help="settings of every training, as of `mage pretrain`")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.data:
        study = Study(name, options)
        ask(options.out / name, {"set": " ".join(options.set)})
        for number in study.subject.classes:
            if options.only is None or number in options.only:
                study.prepare(number)
        if study.finished():
            write_record(options.results / f"{RECORDS[name]}.json", report(study, options.set))
        else:
            print(f"{name}: no class is finished, so there is no record", flush=True)


if __name__ == "__main__":
    main()
