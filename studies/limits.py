"""What keeps samples from the real images: `python studies/limits.py --model cifar10 --data-root DATA`.

The Frechet distance to validation images is measured on a ladder from real images to samples. Training images come
first: their distance is what a finite number of images leaves. The tokenizer's reconstructions of the same images add
what it loses; then the model redraws a growing share of their tokens, by its own sampler, until at 1 nothing of an
image is kept and what is left is a sample. Where the ladder rises most is where work pays.

Also how well the model predicts tokens of training and of validation images: a gap between the two is overfitting,
which more training does not mend; without a gap the model is too small, or trained too briefly. Writes
results/limits_NAME.json and .svg, by the model's name.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import emoji  # noqa: F401  # registers the data set
import torch
from choices import RESULTS, Parts, stated
from measures import batches_of
from torch import Tensor

import mage
from mage import images
from mage.data.datasets import ImageDataset
from mage.evaluation.extractors import build_extractor
from mage.evaluation.generation import compare
from mage.evaluation.seen import Reference, look_at
from mage.report.charts import Series, line_chart, standalone
from mage.runs.generation import random_subset
from mage.runs.record import Record, write_record

SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)
"""Of the tokens that are redrawn."""
PARTS, DRAWS = 2, 1
"""Each token is predicted once, from the half of the image that it is not in."""


class Ladder:
    """One model, and images from which its samples are reached step by step."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.model = mage.load(options.model, device=options.device)
        self.parts = Parts(self.model, options.data or self.model.recipe["data"]["name"], options.data_root)
        self.extractor = build_extractor("efflite0", device=self.model.device)
        self.some = random_subset(self.parts.train, options.samples)
        seen = look_at(self._pixels(self.parts.validation), self.extractor, len(self.parts.validation))
        self.reference = Reference.of("validation", seen)

    def _pixels(self, dataset: ImageDataset) -> Iterator[Tensor]:
        return (images.to_uint8(batch) for batch in batches_of(dataset, self.model.image_size))

    def _redrawn(self, share: float) -> Iterator[Tensor]:
        """The same images after a share of their tokens was redrawn; 0: after the tokenizer."""
        for number, batch in enumerate(batches_of(self.some, self.model.image_size)):
            changed = (
                self.model.variations(batch, strength=share, seed=number, batch_size=len(batch))
                if share
                else self.model.decode_tokens(self.model.encode(batch))
            )
            yield images.to_uint8(changed)

    def distance(self, share: float | None) -> float:
        """To the validation images; none: of the real images themselves."""
        batches = self._pixels(self.some) if share is None else self._redrawn(share)
        metrics = compare(look_at(batches, self.extractor, len(self.some)), self.reference, self.extractor.name).metrics
        return next(value for name, value in metrics.items() if name.startswith("fd_"))

    def nats(self, dataset: ImageDataset) -> float:
        """Mean surprise of a token, in nats."""
        maps = [
            self.model.surprise(batch, parts=PARTS, draws=DRAWS) for batch in batches_of(dataset, self.model.image_size)
        ]
        return float(torch.cat(maps).double().mean())


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name of a packaged model, model or run folder")
    parser.add_argument("--data", default="", help="data set; default: what the model was trained on")
    parser.add_argument("--data-root", help="folder with the data set's files")
    parser.add_argument("--samples", type=int, default=2000, help="images of each distance")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record and the chart")
    options = parser.parse_args()
    start = time.perf_counter()
    ladder = Ladder(options)
    metrics = {"real.fd": ladder.distance(None), "restored.fd": ladder.distance(0.0)}
    for share in SHARES:
        metrics[f"redrawn{share:g}.fd"] = ladder.distance(share)
        print(share, round(metrics[f"redrawn{share:g}.fd"], 1), flush=True)
    metrics["train.nats"], metrics["validation.nats"] = map(ladder.nats, (ladder.some, ladder.parts.validation))
    count = len(ladder.parts.validation)
    protocol = {
        "fd": f"fd_efflite0 of {len(ladder.some):,} training images against {count:,} validation images, which "
        "training held out: of the images themselves, of their reconstructions, and after a share of their tokens was "
        "redrawn by the model's own sampler, without class",
        "nats": "mean of -ln p of a token given the other half of its image; train: of the same training images",
    }
    words = " --data-root DATA" if options.data_root else ""
    words += stated(parser, options, "data", "samples")
    record = Record(
        f"python studies/limits.py --model {Path(options.model).name}{words}",
        0,
        protocol,
        {"total": time.perf_counter() - start},
        metrics,
    )
    name = f"limits_{Path(options.model).name}"
    write_record(options.results / f"{name}.json", record)
    points = [(0.0, metrics["restored.fd"]), *((share, metrics[f"redrawn{share:g}.fd"]) for share in SHARES)]
    real = [(0.0, metrics["real.fd"]), (1.0, metrics["real.fd"])]
    chart = line_chart(
        [Series("tokens redrawn", points, markers=True), Series("real images", real)],
        title="Frechet distance by the share of the tokens that the model redraws",
        x_label="share of the tokens",
        width=760,
        height=320,
    )
    (options.results / f"{name}.svg").write_text(standalone(chart))
    print(metrics)


if __name__ == "__main__":
    main()
