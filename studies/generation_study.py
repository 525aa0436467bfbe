"""Trainings and measurements of studies/generation.py; each is run once and stored in a folder.

Settings are chosen by samples that are compared with validation images; chosen settings are measured with other random
numbers and compared with test images, because the best of many results is biased.
"""

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from choices import Parts, published
from torch import Tensor

import mage
from mage import atomic, images
from mage.data.loaders import evaluation_batches
from mage.evaluation.extractors import build_extractor
from mage.evaluation.generation import compare
from mage.evaluation.judge import Judge, JudgeConfig, judge_of
from mage.evaluation.seen import Reference, SeenImages
from mage.runs.generation import look_at_dataset, random_subset
from mage.runs.production import Production

SMALL, LARGE = 1000, 2500
"""Samples of the curves, and of the numbers that are compared in the text (at most half of the training images)."""
CHOICE_SEED, FINAL_SEED = 0, 1
Samplers = dict[str, list[dict[str, Any]]]
"""Sampler -> settings that are compared at every number of steps."""


def _samplers(temperatures: tuple[float, float, float], orders: tuple[float, ...], *, critic: int) -> Samplers:
    """temperatures: of the choice by confidence. orders: token temperatures of samplers with a fixed or random order.

    critic: number of the lowest temperatures that are left out with a critic.
    """
    middle = temperatures[1]
    return {
        "confidence": [{"order": "confidence", "choice_temperature": value} for value in temperatures],
        "halton": [{"order": "halton", "token_temperature": value} for value in orders],
        "random order": [{"order": "random", "token_temperature": value} for value in orders],
        "confidence, then critic": [
            {"order": "confidence", "choice_temperature": value, "revisions": 2} for value in temperatures[critic:]
        ],
        "confidence, top-p 0.95": [{"order": "confidence", "choice_temperature": middle, "top_p": 0.95}],
    }


@dataclass(frozen=True)
class Subject:
    """A data set, with trainings and samplers of its models."""

    data: str
    recipe: str
    mirror: bool
    """Whether mirrored images belong to the data."""
    soften: bool
    """Whether the judge is also trained on images of a lower resolution."""
    samplers: Samplers
    steps: tuple[int, ...]
    """Numbers of sampling steps of the curves."""
    trainings: dict[str, tuple[str, list[str]]]
    """Name of a training -> recipe and changes to it."""
    guidances: tuple[float, ...]
    guided: tuple[dict[str, Any], ...]
    """Samplers for classes; because guidance sharpens distributions, temperatures can be higher."""
    clustered: tuple[dict[str, Any], ...]
    """Samplers for clusters."""


_FROZEN = ["method.conditions.freeze_encoder=true", "model.class_input=decoder", "pretraining.steps=500"]
SUBJECTS = {
    "cifar10": Subject(
        "cifar10",
        "cifar10",
        True,
        True,
        _samplers((2.0, 4.0, 8.0), (0.6, 0.7, 0.8), critic=1),
        (4, 8, 16, 32),
        {name: (f"cifar10-{name}", []) for name in ("labels", "clusters", "classes")}
        | {"decoder": ("cifar10", ["method.conditions.freeze_encoder=true", "pretraining.steps=1500"])}
        | {"whole": ("cifar10", ["method.conditions.source=clusters"]), "longer": ("cifar10", [])},
        (0.0, 1.0, 2.0, 4.0, 8.0),
        tuple({"order": "halton", "token_temperature": t, "steps": n} for t, n in ((0.6, 4), (0.7, 16))),
        tuple({"order": "halton", "token_temperature": t, "steps": n} for t, n in ((0.6, 4), (0.8, 16))),
    ),
    "digits": Subject(
        "mnist5k",
        "mnist5k",
        False,
        False,
        _samplers((3.0, 6.0, 12.0), (0.9, 1.0), critic=0),
        (4, 8, 16),
        {
            "labels": ("mnist5k", ["method.conditions.source=labels", *_FROZEN]),
            "clusters": ("mnist5k", ["method.conditions.source=clusters", *_FROZEN]),
            "classes": ("mnist5k", ["method.conditions.source=labels"]),
            "decoder": ("mnist5k", ["method.conditions.freeze_encoder=true", "pretraining.steps=500"]),
            "whole": ("mnist5k", ["method.conditions.source=clusters"]),
            "longer": ("mnist5k", []),
        },
        (0.0, 0.5, 1.0, 2.0, 4.0),
        ({"order": "confidence", "choice_temperature": 6.0, "revisions": 2, "steps": 16},),
        ({"order": "confidence", "choice_temperature": 6.0, "revisions": 2, "steps": 16},),
    ),
}


class Study:
    """Trainings and measurements, each run once and stored in OUT."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out, self.base = options, options.out, mage.load(options.model)
        self.tokens = self.out / "tokens"
        self.extractor = build_extractor("efflite0", device=self.base.device)
        self.subject = SUBJECTS[options.data]
        self.parts = Parts(self.base, self.subject.data, options.data_root)
        self.small, self.large = options.samples, min(options.large, len(self.parts.train) // 2)
        self._references: dict[str, Reference] = {}
        self.models: dict[str, mage.Mage] = {"base": self.base}
        self.path = self.out / "measured.json"
        self.measured: dict[str, dict[str, float]] = {}
        self.read()

    def reference(self, split: Literal["validation", "test"]) -> Reference:
        """Statistics of the real images that samples are compared with."""
        if split not in self._references:
            path = self.out / f"reference_{split}.npz"
            if not path.exists():
                dataset = self.parts.validation if split == "validation" else self.parts.test
                look_at_dataset(dataset, self.extractor, size=self.base.image_size, batch_size=250).save(path)
            self._references[split] = Reference.load(path, extractor=self.extractor.fingerprint)
        return self._references[split]

    @functools.cached_property
    def judge(self) -> Judge:
        """The independent classifier, trained without validation and test images."""
        config = JudgeConfig(self.options.epochs, mirror=self.subject.mirror, soften=self.subject.soften)
        where = {"precision": self.base.precision, "device": self.base.device}
        return judge_of(self.parts.train, self.base.image_size, config, cache=self.out, **where)

    def read(self) -> None:
        """Read the stored measurements of all processes."""
        if self.path.exists():
            self.measured |= json.loads(self.path.read_text())

    def keep(self, name: str, values: dict[str, float]) -> dict[str, float]:
        """Store a measurement with those that other processes have stored meanwhile."""
        self.read()
        self.measured[name] = values
        atomic.write_json(self.path, self.measured)
        print(name, {key: round(value, 4) for key, value in values.items()}, flush=True)
        return values

    def measure(self, model: str, sampling: dict[str, Any], *, by_class: bool = False) -> dict[str, float]:
        """Metrics for choosing settings: fd_efflite0, precision and recall of samples against validation images.

        by_class: samples of each class in turn, with their accuracy.
        """
        return self._measure(model, sampling, self.small, "validation", by_class)

    def final(
        self, model: str, sampling: dict[str, Any], *, num: int | None = None, by_class: bool = False
    ) -> dict[str, float]:
        """Metrics of other samples against test images, for settings that are chosen; num: number of samples."""
        return self._measure(model, sampling, num or self.small, "test", by_class)

    def choose(self, model: str, tried: Sequence[dict[str, Any]], *, by_class: bool = False) -> dict[str, Any]:
        """The settings whose samples are nearest to the validation images."""
        if len(tried) == 1:
            return tried[0]
        return min(tried, key=lambda sampling: self.measure(model, sampling, by_class=by_class)["fd"])

    def _measure(
        self, model: str, sampling: dict[str, Any], num: int, split: Literal["validation", "test"], by_class: bool
    ) -> dict[str, float]:
        seed = CHOICE_SEED if split == "validation" else FINAL_SEED
        settings = published(sampling)
        name = json.dumps([model, settings, num, seed, by_class, split])
        self.read()
        if name in self.measured:
            return self.measured[name]
        network = self.models[model]
        production = Production(num, seed, 250, tuple(range(10)) if by_class else (), settings)
        seen, right, start = SeenImages(self.extractor.fingerprint, num), 0, time.perf_counter()
        for first in range(0, num, 250):
            numbers = range(first, min(first + 250, num))
            pixels = images.to_uint8(production.make(network, numbers))
            seen.update(self.extractor(pixels))
            if by_class:
                right += int((self.classify(pixels) == torch.arange(first, first + len(pixels)) % 10).sum())
        metrics = compare(seen, self.reference(split), "efflite0").metrics
        values = {key.split("_")[0]: value for key, value in metrics.items()}
        values["seconds"] = time.perf_counter() - start
        return self.keep(name, values | ({"accuracy": right / num} if by_class else {}))

    def classify(self, pixels: Tensor) -> Tensor:
        """Classes of images, by the judge."""
        judge = self.judge  # may be trained here, which inference mode would not allow
        with torch.inference_mode():
            return judge(pixels.to(self.base.device)).argmax(dim=1).cpu()

    def real(self) -> dict[str, float]:
        """Accuracy of the judge on test images, and distance of training images to them; also after the tokenizer."""
        if "real" in self.measured:
            return self.measured["real"]
        right, kept, labels = 0, 0, torch.from_numpy(self.parts.test.labels)
        for batch in evaluation_batches(self.parts.test, lambda image, _: image, batch_size=500):
            decoded = self.base.decode_tokens(self.base.encode(images.to_float(batch["images"])))
            right += int((self.classify(batch["images"]) == batch["labels"]).sum())
            kept += int((self.classify(images.to_uint8(decoded)) == batch["labels"]).sum())
        values = {"accuracy": right / len(labels), "accuracy_reconstructed": kept / len(labels)}
        for num in (self.small, self.large):
            originals, reconstructions = (SeenImages(self.extractor.fingerprint, num) for _ in range(2))
            for batch in evaluation_batches(
                random_subset(self.parts.train, num), lambda image, _: image, batch_size=250
            ):
                originals.update(self.extractor(batch["images"]))
                tokens = self.base.encode(images.to_float(batch["images"]))
                reconstructions.update(self.extractor(images.to_uint8(self.base.decode_tokens(tokens))))
            for end, seen in (("", originals), ("_reconstructed", reconstructions)):
                metrics = compare(seen, self.reference("test"), "efflite0").metrics
                values[f"fd_{num}{end}"] = next(value for name, value in metrics.items() if name.startswith("fd_"))
        return self.keep("real", values)

    def pretrain(self, name: str, training: str, *changes: str, start: bool = True) -> None:
        """Train a model with the subject's `training`, unless this is finished, and load it.

        start: initialise it with the weights of RUN.
        """
        out, (recipe, own) = self.out / name, self.subject.trainings[training]
        if not self.tokens.exists():
            words = ["--tokenizer", self.options.model, "--out", self.tokens, *self._data_root()]
            _mage("tokenize", "--recipe", self.subject.recipe, *words)
        if not (out / "finished").exists():
            words = ["--recipe", recipe, "--tokenizer", self.options.model, "--data", self.tokens, "--out", out]
            words += [*self._data_root(), *(["--init-from", self.options.model] if start else [])]
            words += [word for change in (*own, *self.options.set, *changes) for word in ("--set", change)]
            _mage("pretrain", *words, *(["--resume"] if any(out.glob("checkpoints/*.pt")) else []))
            (out / "finished").touch()
        self.models[name] = mage.load(out)

    def _data_root(self) -> list[object]:
        return ["--data-root", self.options.data_root] if self.options.data_root else []

    def sampler(self) -> dict[str, Any]:
        """The best settings on validation images at up to 16 steps, for all parts after the curves."""
        few = [steps for steps in self.subject.steps if steps <= 16]
        kinds = self.subject.samplers.values()
        tried = [settings | {"steps": steps} for kind in kinds for settings in kind for steps in few]
        return self.choose("base", tried)


def _mage(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "mage", *map(str, words)], check=True)
