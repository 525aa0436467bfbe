"""Samplers, classes and clusters on CIFAR-10: `python studies/generation.py --data-root DATA --model RUN --out OUT`.

RUN is a finished run of the recipe cifar10 with its tokenizer inside (of other sizes than the recipe's: give them with
`--set model.width=...` again). On its frozen encoder the study trains decoders
for labels and for 16, 64 and 256 clusters, and from scratch a model that knows labels; then it generates with many
samplers and judges: Frechet distance to the 10,000 test images (fd_efflite0), and how many class-conditional samples an
independent classifier, trained on real images, takes for their class. Results go to results/generation.json, figures
beside it. Trainings resume, and no set of samples is measured twice: `--parts` and repeated runs share OUT.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from cifar_judge import Classifier, train_classifier
from torch import Tensor

import mage
from mage import images
from mage.data.datasets import load_dataset
from mage.data.loaders import evaluation_batches
from mage.evaluation.extractors import build_extractor
from mage.evaluation.generation import Reference, SeenImages, compare
from mage.recipes.generation import look_at_dataset, some
from mage.recipes.production import Production
from mage.recipes.record import Record, write_record
from mage.report.charts import Series, line_chart, standalone

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("labels", "clusters", "classes", "samplers", "guidance", "self_conditional", "edits")
CLUSTERS = (16, 64, 256)
STEPS = (4, 8, 16, 32)
GUIDANCES = (0.0, 0.5, 1.0, 2.0, 4.0)
SAMPLERS: dict[str, list[dict[str, Any]]] = {
    "confidence": [{"order": "confidence", "choice_temperature": value} for value in (4.0, 8.0, 16.0)],
    "halton": [{"order": "halton", "token_temperature": value} for value in (0.9, 1.0)],
    "random order": [{"order": "random", "token_temperature": value} for value in (0.9, 1.0)],
    "confidence, then critic": [{"order": "confidence", "choice_temperature": 8.0, "revisions": 2}],
    "confidence, top-p 0.95": [{"order": "confidence", "choice_temperature": 8.0, "top_p": 0.95}],
}
"""Each with the settings that are tried at every number of steps; the best counts."""
LARGE = 5000
"""Images of the numbers that are compared in the text; the curves have 1,000."""


class Study:
    """Trainings and measurements, each done once and kept in OUT."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out, self.base = options, options.out, mage.load(options.model)
        self.tokens = self.out / "tokens"
        self.extractor = build_extractor("efflite0", device=self.base.device)
        self.test = load_dataset("cifar10", split="test", data_root=options.data_root)
        self.train = load_dataset("cifar10", split="train", data_root=options.data_root)
        self.models: dict[str, mage.Mage] = {"base": self.base}
        self.path = self.out / "measured.json"
        self.measured: dict[str, dict[str, float]] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def prepare(self) -> None:
        """What measuring needs: the judge, and the reference."""
        self.judge = self._judge()
        seen_file = self.out / "reference.npz"
        if not seen_file.exists():
            look_at_dataset(self.test, self.extractor, size=(32, 32), batch_size=250).save(seen_file)
        self.reference = Reference.load(seen_file, extractor=self.extractor.fingerprint)

    def _judge(self) -> Classifier:
        path = self.out / "classifier.pt"
        if not path.exists():
            batches = list(evaluation_batches(self.train, lambda image, _: image, batch_size=1000))
            pixels, labels = (torch.cat([batch[key] for batch in batches]) for key in ("images", "labels"))
            network = train_classifier(
                pixels, labels, epochs=self.options.epochs, precision=self.base.precision, device=self.base.device
            )
            torch.save(network.state_dict(), path)
        network = Classifier().to(self.base.device, memory_format=torch.channels_last)
        network.load_state_dict(torch.load(path, weights_only=True, map_location=self.base.device))
        return network.eval()

    def keep(self, name: str, values: dict[str, float]) -> dict[str, float]:
        """Write down what was measured."""
        self.measured[name] = values
        self.path.write_text(json.dumps(self.measured, indent=1))
        print(name, {key: round(value, 4) for key, value in values.items()}, flush=True)
        return values

    def measure(
        self, model: str, sampling: dict[str, Any], *, num: int = 1000, seed: int = 0, by_class: bool = False
    ) -> dict[str, float]:
        """fd_efflite0, precision and recall of some samples; by_class: each class in turn, and the accuracy."""
        name = json.dumps([model, sampling, num, seed, by_class])
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
        found = compare(seen, self.reference, "efflite0").metrics
        values = {key.split("_")[0]: value for key, value in found.items()} | {"seconds": time.perf_counter() - start}
        return self.keep(name, values | ({"accuracy": right / num} if by_class else {}))

    @torch.inference_mode()
    def classify(self, pixels: Tensor) -> Tensor:
        """The classes that the judge sees."""
        return self.judge(pixels.to(self.base.device)).argmax(dim=1).cpu()

    def real(self) -> dict[str, float]:
        """What real and what reconstructed test images get."""
        if "real" in self.measured:
            return self.measured["real"]
        right, kept, labels = 0, 0, torch.from_numpy(self.test.labels)
        for batch in evaluation_batches(self.test, lambda image, _: image, batch_size=500):
            again = self.base.decode_tokens(self.base.encode(images.to_float(batch["images"])))
            right += int((self.classify(batch["images"]) == batch["labels"]).sum())
            kept += int((self.classify(images.to_uint8(again)) == batch["labels"]).sum())
        values = {"accuracy": right / len(labels), "accuracy_reconstructed": kept / len(labels)}
        for num in (1000, LARGE):
            seen = look_at_dataset(some(self.train, num), self.extractor, size=(32, 32), batch_size=250)
            values[f"fd_{num}"] = compare(seen, self.reference, "efflite0").metrics[
                f"fd_efflite0_reference{num // 1000}k"
            ]
        return self.keep("real", values)

    def pretrain(self, name: str, recipe: str, *changes: str, start: bool = True) -> None:
        """Train a model with classes, unless it is done, and load it."""
        out = self.out / name
        if not self.tokens.exists():
            words = ["--tokenizer", self.options.model, "--data-root", self.options.data_root, "--out", self.tokens]
            _mage("tokenize", "--recipe", "cifar10", *words)
        if not (out / "finished").exists():
            words = ["--recipe", recipe, "--tokenizer", self.options.model, "--data", self.tokens, "--out", out]
            words += ["--data-root", self.options.data_root, *(["--init-from", self.options.model] if start else [])]
            words += [word for change in (*self.options.set, *changes) for word in ("--set", change)]
            _mage("pretrain", *words, *(["--resume"] if any(out.glob("checkpoints/*.pt")) else []))
            (out / "finished").touch()
        self.models[name] = mage.load(out)

    def sampler(self) -> dict[str, Any]:
        """The settings that the curves found best at 16 steps, for everything after them."""
        found = [(self.measure("base", one | {"steps": 16})["fd"], one) for tried in SAMPLERS.values() for one in tried]
        return min(found, key=lambda pair: pair[0])[1] | {"steps": 16}


def _mage(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "mage", *map(str, words)], check=True)


def samplers(study: Study) -> dict[str, float]:
    """Steps against quality, for every sampler."""
    found: dict[str, float] = {}
    lines = []
    for name, tried in SAMPLERS.items():
        points: list[tuple[float, float | None]] = []
        for steps in STEPS:
            best = min(study.measure("base", one | {"steps": steps})["fd"] for one in tried)
            found[f"fd_1k.{name.replace(', ', ' ').replace(' ', '_')}.steps{steps}"] = best
            points.append((steps, best))
        lines.append(Series(name, points, markers=True))
    figure("generation_steps", lines, "fd_efflite0 of 1,000 samples, smaller is better", "network passes per image")
    return found


def guidance(study: Study) -> dict[str, float]:
    """Accuracy of the class against guidance, and the trade-off with the Frechet distance."""
    found: dict[str, float] = {}
    accuracy, distance = [], []
    for model in ("labels", "classes"):
        if model not in study.models:
            continue
        for weight in GUIDANCES:
            values = study.measure(model, study.sampler() | {"guidance": weight}, by_class=True)
            found[f"class_accuracy.{model}.guidance{weight:g}"] = values["accuracy"]
            found[f"fd_1k.{model}.guidance{weight:g}"] = values["fd"]
        read = [
            (weight, study.measure(model, study.sampler() | {"guidance": weight}, by_class=True))
            for weight in GUIDANCES
        ]
        accuracy.append(Series(model, [(weight, values["accuracy"]) for weight, values in read], markers=True))
        distance.append(Series(model, [(weight, values["fd"]) for weight, values in read], markers=True))
    figure("generation_guidance_accuracy", accuracy, "share of samples taken for their class", "guidance")
    figure("generation_guidance_distance", distance, "fd_efflite0 of 1,000 samples", "guidance")
    models = sorted({name.split(".")[1] for name in found if name.startswith("class_accuracy.")})
    if models:
        found["class_accuracy"] = max(found[f"class_accuracy.{model}.guidance0"] for model in models)
        found["class_accuracy_guided"] = max(
            value for name, value in found.items() if name.startswith("class_accuracy.")
        )
    return found


def self_conditional(study: Study) -> dict[str, float]:
    """The same model before and after it was told its own clusters."""
    found: dict[str, float] = {}
    before = study.measure("base", study.sampler(), num=LARGE, seed=1)["fd"]
    best: tuple[float, str, float] | None = None
    points: list[tuple[float, float | None]] = []
    for count in CLUSTERS:
        name = f"clusters{count}"
        if name not in study.models:
            continue
        tried = [(study.measure(name, study.sampler() | {"guidance": w})["fd"], name, w) for w in (0.0, 1.0, 2.0)]
        found |= {f"fd_1k.{name}.guidance{weight:g}": value for value, _, weight in tried}
        points.append((count, min(tried)[0]))
        best = min(tried + ([best] if best is not None else []))
    if best is None:
        return found
    after = study.measure(best[1], study.sampler() | {"guidance": best[2]}, num=LARGE, seed=1)["fd"]
    found |= {"fd_5k.before": before, "fd_5k.after": after, "self_conditional_gain": 1 - after / before}
    figure(
        "generation_clusters",
        [Series("best guidance", points, markers=True)],
        "fd_efflite0 of 1,000 samples",
        "clusters",
    )
    return found


def edits(study: Study) -> None:
    """A picture of what classes, clusters and edits look like."""
    rows = []
    names = study.train.class_names
    if "labels" in study.models:
        for number, name in enumerate(names):
            made = study.models["labels"].generate(12, classes=number, **(study.sampler() | {"guidance": 2.0}))
            rows.append((name, made.float().cpu()))
        images.save_png(ROOT / "results" / "generation_classes.png", images.labelled_rows(rows, side=48))
    base = study.base.generate(48, **study.sampler()).float().cpu()
    shown = [("as it was", base[k : k + 12]) for k in range(0, 48, 12)]
    for count in CLUSTERS:
        if f"clusters{count}" in study.models:
            made = study.models[f"clusters{count}"].generate(24, **(study.sampler() | {"guidance": 1.0})).float().cpu()
            shown += [(f"{count} clusters", made[k : k + 12]) for k in range(0, 24, 12)]
    images.save_png(ROOT / "results" / "generation_clusters.png", images.labelled_rows(shown, side=48))


def figure(name: str, lines: list[Series], title: str, x_label: str) -> None:
    """A chart under results/."""
    chart = line_chart(lines, title=title, x_label=x_label, width=760, height=340)
    if chart:
        (ROOT / "results" / f"{name}.svg").write_text(standalone(chart))


def main() -> None:
    """Train, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder where CIFAR-10 lies")
    parser.add_argument("--model", required=True, type=Path, help="finished run of the recipe cifar10")
    parser.add_argument("--out", type=Path, default=Path("runs/generation"), help="folder of the runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--set", action="append", default=[], help="settings of every training, as of `mage pretrain`")
    parser.add_argument("--set-classes", action="append", default=[], help="settings of the training from scratch")
    parser.add_argument("--clusters", nargs="+", type=int, default=list(CLUSTERS), help="numbers of clusters to train")
    parser.add_argument("--train-only", action="store_true", help="train the parts labels, clusters, classes; no more")
    parser.add_argument("--epochs", type=int, default=12, help="of the independent classifier")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    study = Study(options)
    if "labels" in options.parts:
        study.pretrain("labels", "cifar10-labels")
    if "clusters" in options.parts:
        for count in options.clusters:
            study.pretrain(f"clusters{count}", "cifar10-clusters", f"conditions.clusters={count}")
    if "classes" in options.parts:
        study.pretrain("classes", "cifar10-classes", *options.set_classes, start=False)
    if options.train_only:
        return
    study.prepare()
    for name in ("labels", "classes", *(f"clusters{count}" for count in CLUSTERS)):
        if (options.out / name / "finished").exists():
            study.models[name] = mage.load(options.out / name)
    real = study.real()
    metrics = {f"{name}.real": value for name, value in real.items()}
    for part, work in (("samplers", samplers), ("guidance", guidance), ("self_conditional", self_conditional)):
        if part in options.parts:
            metrics |= work(study)
    if "edits" in options.parts:
        edits(study)
    best = study.sampler()
    metrics["best_sampler_fd_1k"] = study.measure("base", best)["fd"]
    protocol = {
        "best_sampler": ", ".join(f"{name} {value}" for name, value in best.items()),
        "fd": "fd_efflite0 against the 10,000 test images; 1k and 5k: samples; seeds 0 and 1",
        "class_accuracy": "share of 1,000 samples, each class in turn, that a small ResNet of real images takes "
        "for their class; best of the models",
        "self_conditional_gain": "1 - after / before, 5,000 samples of seed 1, one sampler",
    }
    timings = {name: values["seconds"] for name, values in study.measured.items() if "seconds" in values}
    command = "python studies/generation.py --data-root data --model runs/cifar10"
    write_record(
        ROOT / "results" / "generation.json", Record(command, 0, protocol, {"total": sum(timings.values())}, metrics)
    )


if __name__ == "__main__":
    main()
