"""What a decoder gains from tokens that its model redraws: `python studies/decoder.py --model cifar10`.

The decoder of a trained model is trained further, on images of which the model redraws no token, up to half, or up to
all of them, for the same number of steps each. The same sampled tokens are then decoded by each, so that only the
decoder differs: Frechet distance to validation images, which training held out, of samples without and with class and
of reconstructions. What is finished is not repeated. Writes results/decoder_DATA.json.
"""

import argparse
import json
from pathlib import Path

import torch
from choices import RESULTS, Parts, ask, place, stated
from measures import BATCH, batches_of, every_class
from torch import Tensor

import mage
from mage import atomic, images, runs
from mage.evaluation.extractors import build_extractor
from mage.evaluation.generation import compare
from mage.evaluation.seen import Reference, look_at
from mage.recipes.resolve import Choice
from mage.runs import Launch
from mage.runs.decoder import decoder_recipe
from mage.runs.generation import look_at_dataset, random_subset
from mage.runs.record import Record, write_record
from mage.sampling.classes import NO_CLASS

SHARES = (0.0, 0.5, 1.0)
"""Largest shares of the tokens that are redrawn."""


class Samples:
    """Tokens that are decoded by every decoder, and the images that they are compared with."""

    def __init__(self, model: mage.Mage, parts: Parts, count: int, folder: Path) -> None:
        self._extractor, self._count = build_extractor("efflite0", device=model.device), count
        seen = look_at_dataset(
            parts.validation, self._extractor, size=model.image_size, batch_size=BATCH, device=model.device
        )
        self._reference = Reference.of("validation", seen)
        self._some = random_subset(parts.train, count)
        path = folder / f"tokens{count}.pt"
        if not path.exists():
            with atomic.replacing(path) as unfinished:
                torch.save(self._drawn(model), unfinished)
        self._tokens: dict[str, Tensor] = torch.load(path, weights_only=True)

    def _drawn(self, model: mage.Mage) -> dict[str, Tensor]:
        classes = every_class(model)
        free = NO_CLASS if classes else None
        tokens = {"free": model.generate_tokens(self._count, seed=1, batch_size=BATCH, classes=free)}
        if classes:
            wanted = [number % len(classes) for number in range(self._count)]
            tokens["classes"] = model.generate_tokens(self._count, seed=1, batch_size=BATCH, classes=wanted)
        return tokens

    def distances(self, model: mage.Mage) -> dict[str, float]:
        """Of the tokens as this model decodes them."""
        tokens = dict(self._tokens)
        tokens["restored"] = torch.cat([model.encode(batch) for batch in batches_of(self._some, model.image_size)])
        return {name: self._distance(model, ids) for name, ids in tokens.items()}

    def _distance(self, model: mage.Mage, ids: Tensor) -> float:
        pixels = (images.to_uint8(model.decode_tokens(part)) for part in ids.split(BATCH))
        seen = look_at(pixels, self._extractor, len(ids))
        metrics = compare(seen, self._reference, self._extractor.name).metrics
        return next(value for name, value in metrics.items() if name.startswith("fd_"))


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name of a packaged model, model or run folder")
    parser.add_argument("--data-root", help="folder with the data set's files")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--samples", type=int, default=2000, help="images of each distance")
    parser.add_argument("--out", type=Path, default=Path("runs/decoder"), help="folder for the runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    model = mage.load(options.model, device=options.device, precision="float32")
    data = model.recipe["data"]["name"]
    out: Path = options.out / data
    out.mkdir(parents=True, exist_ok=True)
    ask(out, {"model": place(options.model), "steps": options.steps, "samples": options.samples})
    samples = Samples(model, Parts(model, data, options.data_root), options.samples, out)
    metrics = {f"before.{name}": value for name, value in samples.distances(model).items()}
    timings = dict[str, float]()
    for share in SHARES:
        folder, done = out / f"redrawn{share:g}", out / f"redrawn{share:g}.json"
        if not done.exists():
            changes = (f"tokenizer_training.steps={options.steps}", f"tokenizer_loss.redrawn={share:g}")
            launch = Launch(folder, device=options.device, precision="float32", data_root=options.data_root)
            result = runs.train_tokenizer(decoder_recipe(model, Choice(changes=changes)), launch, redrawn_by=model)
            tuned = mage.load(folder, device=options.device, precision="float32")
            atomic.write_json(done, {"seconds": result.seconds, "distances": samples.distances(tuned)})
        found = json.loads(done.read_text())
        timings[f"redrawn{share:g}"] = found["seconds"]
        metrics |= {f"redrawn{share:g}.{name}": value for name, value in found["distances"].items()}
        print(share, found, flush=True)
    batch = decoder_recipe(model, Choice()).tokenizer_training.batch_size
    protocol = {
        "validation": "Distances to validation images, which training held out; no test image was used.",
        "fd": f"fd_efflite0 of {options.samples:,} images: samples without class, samples by class, reconstructions of "
        "training images; the same tokens for every decoder",
        "training": f"{options.steps:,} steps of {batch} images; encoder, codebook and network as they are",
    }
    words = " --data-root DATA" if options.data_root else ""
    words += stated(parser, options, "steps", "samples")
    command = f"python studies/decoder.py --model {Path(options.model).name}{words}"
    write_record(options.results / f"decoder_{data}.json", Record(command, 0, protocol, timings, metrics))
    print(metrics)


if __name__ == "__main__":
    main()
