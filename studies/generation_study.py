"""What studies/generation.py works with: trainings and measurements, each done once and kept in a folder.

Settings are chosen by samples that are compared with validation images; what was chosen draws other random numbers
and is compared with test images, because the best of many is partly the luckiest.
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
from choices import Parts
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
"""Each sampler with the settings that are tried at every number of steps; the best counts."""


def _samplers(temperatures: tuple[float, float, float], orders: tuple[float, ...], *, critic: int) -> Samplers:
    """temperatures: of the choice, by confidence; orders: of the tokens, where an order decides which are drawn.

    critic: how many of the temperatures it does without, the lowest ones.
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
    """A data set, and how models of it are trained: TRAINING -> recipe and changes to it."""

    data: str
    recipe: str
    mirror: bool
    """Whether a mirrored image shows the same."""
    soften: bool
    """Whether the judge learns from images of a lower resolution too."""
    samplers: Samplers
    steps: tuple[int, ...]
    """Numbers of network passes on the curves."""
    trainings: dict[str, tuple[str, list[str]]]
    guidances: tuple[float, ...]
    guided: tuple[dict[str, Any], ...]
    """Samplers that are tried with classes: guidance sharpens, too, and so allows higher temperatures."""
    told: tuple[dict[str, Any], ...]
    """Samplers that are tried with clusters."""


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
    """Trainings and measurements, each done once and kept in OUT."""

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
        """What samples are compared with."""
        if split not in self._references:
            path = self.out / f"reference_{split}.npz"
            if not path.exists():
                dataset = self.parts.validation if split == "validation" else self.parts.test
                look_at_dataset(dataset, self.extractor, size=self.base.image_size, batch_size=250).save(path)
            self._references[split] = Reference.load(path, extractor=self.extractor.fingerprint)
        return self._references[split]

    @functools.cached_property
    def judge(self) -> Judge:
        """The independent classifier, which has learned from no validation and no test image."""
        config = JudgeConfig(self.options.epochs, mirror=self.subject.mirror, soften=self.subject.soften)
        where = {"precision": self.base.precision, "device": self.base.device}
        return judge_of(self.parts.train, self.base.image_size, config, cache=self.out, **where)

    def read(self) -> None:
        """Take over what this or another process has measured."""
        if self.path.exists():
            self.measured |= json.loads(self.path.read_text())

    def keep(self, name: str, values: dict[str, float]) -> dict[str, float]:
        """Write down what was measured, beside what another process has found meanwhile."""
        self.read()
        self.measured[name] = values
        atomic.write_json(self.path, self.measured)
        print(name, {key: round(value, 4) for key, value in values.items()}, flush=True)
        return values

    def measure(self, model: str, sampling: dict[str, Any], *, by_class: bool = False) -> dict[str, float]:
        """Of the samples that settings are chosen by: fd_efflite0, precision and recall against validation images.

        by_class: each class in turn, and the accuracy.
        """
        return self._measure(model, sampling, self.small, "validation", by_class)

    def final(
        self, model: str, sampling: dict[str, Any], *, num: int | None = None, by_class: bool = False
    ) -> dict[str, float]:
        """The same of other samples, against test images: for settings that nothing is left to choose of."""
        return self._measure(model, sampling, num or self.small, "test", by_class)

    def choose(self, model: str, tried: Sequence[dict[str, Any]], *, by_class: bool = False) -> dict[str, Any]:
        """The settings whose samples are nearest to the validation images."""
        if len(tried) == 1:
            return tried[0]
        return min(tried, key=lambda one: self.measure(model, one, by_class=by_class)["fd"])

    def _measure(
        self, model: str, sampling: dict[str, Any], num: int, split: Literal["validation", "test"], by_class: bool
    ) -> dict[str, float]:
        seed = CHOICE_SEED if split == "validation" else FINAL_SEED
        name = json.dumps([model, sampling, num, seed, by_class, split])
        self.read()
        if name in self.measured:
            return self.measured[name]
        network = self.models[model]
        production = Production(num, seed, 250, tuple(range(10)) if by_class else (), sampling)
        seen, right, start = SeenImages(self.extractor.fingerprint, num), 0, time.perf_counter()
        for first in range(0, num, 250):
            numbers = range(first, min(first + 250, num))
            pixels = images.to_uint8(production.make(network, numbers))
            seen.update(self.extractor(pixels))
            if by_class:
                right += int((self.classify(pixels) == torch.arange(first, first + len(pixels)) % 10).sum())
        found = compare(seen, self.reference(split), "efflite0").metrics
        values = {key.split("_")[0]: value for key, value in found.items()} | {"seconds": time.perf_counter() - start}
        return self.keep(name, values | ({"accuracy": right / num} if by_class else {}))

    def classify(self, pixels: Tensor) -> Tensor:
        """The classes that the judge sees."""
        judge = self.judge  # may be trained here, which inference mode would not allow
        with torch.inference_mode():
            return judge(pixels.to(self.base.device)).argmax(dim=1).cpu()

    def real(self) -> dict[str, float]:
        """What real and what reconstructed test images get."""
        if "real" in self.measured:
            return self.measured["real"]
        right, kept, labels = 0, 0, torch.from_numpy(self.parts.test.labels)
        for batch in evaluation_batches(self.parts.test, lambda image, _: image, batch_size=500):
            again = self.base.decode_tokens(self.base.encode(images.to_float(batch["images"])))
            right += int((self.classify(batch["images"]) == batch["labels"]).sum())
            kept += int((self.classify(images.to_uint8(again)) == batch["labels"]).sum())
        values = {"accuracy": right / len(labels), "accuracy_reconstructed": kept / len(labels)}
        for num in (self.small, self.large):
            seen, again = (SeenImages(self.extractor.fingerprint, num) for _ in range(2))
            for batch in evaluation_batches(
                random_subset(self.parts.train, num), lambda image, _: image, batch_size=250
            ):
                seen.update(self.extractor(batch["images"]))
                tokens = self.base.encode(images.to_float(batch["images"]))
                again.update(self.extractor(images.to_uint8(self.base.decode_tokens(tokens))))
            for end, which in (("", seen), ("_reconstructed", again)):
                found = compare(which, self.reference("test"), "efflite0").metrics
                values[f"fd_{num}{end}"] = next(value for name, value in found.items() if name.startswith("fd_"))
        return self.keep("real", values)

    def pretrain(self, name: str, training: str, *changes: str, start: bool = True) -> None:
        """Train a model with classes as the subject's `training`, unless it is done, and load it.

        start: at the weights of RUN.
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
        """The settings that are best on validation images at up to 16 steps, for everything after the curves."""
        few = [steps for steps in self.subject.steps if steps <= 16]
        kinds = self.subject.samplers.values()
        tried = [one | {"steps": steps} for settings in kinds for one in settings for steps in few]
        return self.choose("base", tried)


def _mage(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "mage", *map(str, words)], check=True)
