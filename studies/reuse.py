"""What reused passes cost and bring: `python studies/reuse.py --model RUN [--data-root DATA]`.

For three orders of decoding, all at 20 steps, and several values of `SamplingConfig.reuse`: the time of a batch of
images over that of the paper's sampler (confidence, the encoder sees all tokens, every pass complete), taken in turns,
and the Frechet distance of samples to the test images. The temperature of each order, and the share of the tokens that
its encoder sees, are chosen on validation images with complete passes; so is the recommended reuse, the largest whose
distance on validation images is at most 2 % above that of the paper's sampler at its best temperature.

Measurements are kept in OUT and not repeated. Writes results/reuse_NAME.json and .svg, NAME being the data set's.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from choices import RESULTS, Parts, ask, place, published, stated
from measures import every_class, without_class

import mage
from mage import atomic
from mage.benchmarks.measure import take_turns
from mage.evaluation.extractors import build_extractor
from mage.evaluation.generation import compare
from mage.evaluation.seen import Reference
from mage.report.charts import Series, line_chart, standalone
from mage.runs.generation import look_at_dataset, look_at_model
from mage.runs.production import Production
from mage.runs.record import Record, write_record

STEPS, TOLERANCE = 20, 0.02
REUSES = (1, 2, 4, 8)
SHARES = (1.0, 0.25)
"""Values of `encoder_keep`, tried at the best temperature."""
ORDERS: dict[str, list[dict[str, Any]]] = {
    "confidence": [{"choice_temperature": value} for value in (3.0, 6.0, 12.0)],
    "halton": [{"token_temperature": value} for value in (0.8, 0.9, 1.0)],
    "random": [{"token_temperature": value} for value in (0.8, 0.9, 1.0)],
}
"""Each order with the temperatures that are tried."""


class Study:
    """Distances of one model's samples, each measured once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.model = mage.load(options.model)
        self.data = options.data or self.model.recipe["data"]["name"]
        self.parts = Parts(self.model, self.data, options.data_root)
        self.samples = {"validation": options.choice_samples, "test": options.samples}
        self.out = options.out
        ask(self.out, {"model": place(options.model), "data": place(self.data)})
        self.extractor = build_extractor("efflite0", device=self.model.device)
        self.path = self.out / "measured.json"
        self.measured: dict[str, float] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def reference(self, split: str) -> Reference:
        """Statistics of the real images of a split."""
        path = self.out / f"reference_{split}.npz"
        if not path.exists():
            dataset = self.parts.validation if split == "validation" else self.parts.test
            size = self.model.image_size
            look_at_dataset(dataset, self.extractor, size=size, batch_size=250).save(path)
        return Reference.load(path, extractor=self.extractor.fingerprint)

    def distance(self, sampling: dict[str, Any], split: str) -> float:
        """Frechet distance of samples to a split; the test split has random numbers of its own."""
        settings = published(sampling)
        key = json.dumps([settings, split, self.samples[split]])
        if key not in self.measured:
            production = Production(
                self.samples[split], int(split == "test"), 250, free_of_labels(self.model), settings
            )
            seen = look_at_model(self.model, production, self.extractor)
            metrics = compare(seen, self.reference(split), "efflite0").metrics
            self.measured[key] = next(value for name, value in metrics.items() if name.startswith("fd_"))
            atomic.write_json(self.path, self.measured)
            print(sampling, split, round(self.measured[key], 2), flush=True)
        return self.measured[key]

    def choose_temperature(self, order: str) -> dict[str, Any]:
        """The settings of an order, its encoder seeing all tokens, with the least distance on validation images."""
        base = {"steps": STEPS, "encoder_keep": 1.0, "reuse": 1, "order": order}
        return min((base | one for one in ORDERS[order]), key=lambda sampling: self.distance(sampling, "validation"))

    def choose_share(self, sampling: dict[str, Any]) -> dict[str, Any]:
        """The same with the share of the tokens for the encoder that has the least distance."""
        ways = [sampling | {"encoder_keep": share} for share in SHARES]
        return min(ways, key=lambda way: self.distance(way, "validation"))

    def recommend(self, sampling: dict[str, Any], paper: dict[str, Any]) -> int:
        """The largest reuse that costs no more than the tolerance over the paper's sampler, on validation images."""
        limit = (1 + TOLERANCE) * self.distance(paper, "validation")
        return max(n for n in REUSES if n == 1 or self.distance(sampling | {"reuse": n}, "validation") <= limit)


def free_of_labels(model: mage.Mage) -> tuple[int, ...]:
    """The classes of samples without label; empty for a model without labels: clusters are drawn."""
    return without_class(model) if every_class(model) else ()


def speedups(
    model: mage.Mage, paper: dict[str, Any], chosen: dict[str, dict[str, Any]], batch: int, rounds: int
) -> dict[str, float]:
    """How many times faster than the paper's sampler, decoding to pixels included."""
    free = free_of_labels(model) or None
    ways = {"published": lambda: model.generate(batch, batch_size=batch, seed=0, classes=free, **published(paper))}
    ways |= {
        f"{order}.reuse{every}": lambda sampling=sampling | {"reuse": every}: model.generate(
            batch, batch_size=batch, seed=0, classes=free, **published(sampling)
        )
        for order, sampling in chosen.items()
        for every in REUSES
    }
    timings = take_turns(ways, rounds=rounds, device=torch.device(model.device))
    base = timings["published"].median
    return {name: base / timing.median for name, timing in timings.items()}


def main() -> None:
    """Choose, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="run folder of a trained model")
    parser.add_argument("--data", default="", help="data set; default: what the model was trained on")
    parser.add_argument("--data-root", help="folder with the data set's files")
    parser.add_argument("--out", type=Path, default=Path("runs/reuse"), help="folder for what is measured")
    parser.add_argument("--samples", type=int, default=5000, help="samples of each distance")
    parser.add_argument("--choice-samples", type=int, default=2000, help="samples of each distance that chooses")
    parser.add_argument("--batch", type=int, default=64, help="images of each timed batch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record and the chart")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    study = Study(options)
    warm = {order: study.choose_temperature(order) for order in ORDERS}
    paper = warm["confidence"]
    chosen = {order: study.choose_share(sampling) for order, sampling in warm.items()}
    recommended = {order: study.recommend(sampling, paper) for order, sampling in chosen.items()}
    faster = speedups(study.model, paper, chosen, options.batch, options.rounds)
    metrics = {f"{name}.speedup": value for name, value in faster.items()}
    metrics["published.fd"] = study.distance(paper, "test")
    lines = []
    for order, sampling in chosen.items():
        distances = {every: study.distance(sampling | {"reuse": every}, "test") for every in REUSES}
        metrics |= {f"{order}.reuse{every}.fd": value for every, value in distances.items()}
        metrics[f"{order}.recommended"] = recommended[order]
        lines.append(Series(order, [(faster[f"{order}.reuse{n}"], fd) for n, fd in distances.items()], markers=True))
    best = max(ORDERS, key=lambda order: faster[f"{order}.reuse{recommended[order]}"])
    metrics["generate_reuse"] = faster[f"{best}.reuse{recommended[best]}"]
    metrics["fd_over_published"] = metrics[f"{best}.reuse{recommended[best]}.fd"] / metrics["published.fd"]
    protocol = {
        "validation": study.parts.sentence("Temperatures, shares and the recommended reuse were chosen"),
        "published": f"the paper's sampler: {STEPS} steps, confidence, encoder_keep 1, its best temperature; of "
        "every sampler, what is not stated is as published, not as the model was tuned",
        "speedup": f"seconds of {options.batch} images by the paper's sampler over those of each way, decoding "
        f"included, medians of {options.rounds} rounds taken in turns, {study.model.precision}",
        "fd": f"fd_efflite0 of {options.samples:,} samples against {len(study.parts.test):,} test images; choices by "
        f"{options.choice_samples:,} samples",
        "generate_reuse": f"{best} with its recommended reuse; fd_over_published: its distance over the paper's",
        "settings": json.dumps(chosen),
    }
    words = " --data-root DATA" if options.data_root else ""
    words += stated(parser, options, "data", "samples", "choice_samples", "batch", "rounds")
    command = f"python studies/reuse.py --model {options.model.name}{words}"
    record = Record(command, 0, protocol, {"total": time.perf_counter() - start}, metrics)
    write_record(options.results / f"reuse_{study.data}.json", record)
    title = f"fd_efflite0 of {options.samples:,} samples by how many times faster they are drawn"
    chart = line_chart(lines, title=title, x_label="times faster than the paper's sampler", width=760, height=360)
    (options.results / f"reuse_{study.data}.svg").write_text(standalone(chart))
    print(metrics)


if __name__ == "__main__":
    main()
