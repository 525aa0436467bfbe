"""Tokenizers of CIFAR-10 side by side: `python studies/tokenizers.py --data-root DATA --out runs/tokenizers`.

Trains each variant of the small recipe (`--only` chooses some), `--jobs` at a time with one thread each, judges all of
them on the 10,000 test images, and writes results/tokenizers.json and one picture. Finished trainings are not repeated,
and a stopped study goes on where it was. Variants of one group cost the same: network, batch size and steps are equal.

The Frechet distances are of reconstructions against their own originals, seen by two networks: EfficientNet-Lite0,
which the perceptual loss also looks through and which therefore flatters, and the judge, a small classifier that was
trained on the labels of the training images and that no training loss has seen.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from mage import images, runs
from mage.data.datasets import load_dataset
from mage.evaluation.frechet import FeatureStatistics
from mage.evaluation.judge import judge_features
from mage.evaluation.tokenizer import evaluate_tokenizer
from mage.nn.backbones import PooledFeatures, efflite0
from mage.runs.record import Record
from mage.tokenizers.perceptual import build_perceptual
from mage.training.runlog import read_log

ROOT = Path(__file__).resolve().parent.parent
QUANTIZER_STEPS = 800


PLAIN = [
    "tokenizer.quantizer.num_codes=1024",
    "tokenizer.quantizer.revive_below=0.05",
    "tokenizer_loss.perceptual=0.1",
    "tokenizer_loss.adversarial.weight=0",
]
"""What the small comparisons change in the recipe, which holds the settings of `best`."""


def _quantizer(kind: str, *more: str) -> list[str]:
    return [*PLAIN, f"tokenizer.quantizer.kind={kind}", f"tokenizer_training.steps={QUANTIZER_STEPS}", *more]


def _game(weight: float) -> list[str]:
    """The same training with the discriminator from a quarter of the way on, or without it."""
    return [
        *PLAIN,
        "tokenizer.quantizer.kind=normalized",
        "tokenizer_training.steps=1000",
        f"tokenizer_loss.adversarial.weight={weight}",
    ]


KEPT = "tokenizer.quantizer.keep_alive=true"
VARIANTS: dict[str, list[str]] = {
    "vq_plain": _quantizer("vq"),
    "vq": _quantizer("vq", KEPT),
    "ema": _quantizer("ema"),
    "normalized": _quantizer("normalized"),
    "simvq": _quantizer("simvq", KEPT),
    "fsq": _quantizer(
        "fsq", "tokenizer.quantizer.levels=[8,5,5,5]", "tokenizer.quantizer.num_codes=1000", "tokenizer.code_width=4"
    ),
    "lfq": _quantizer("lfq", "tokenizer.quantizer.entropy=0.1", "tokenizer.code_width=10"),
    "gan_off": _game(0.0),
    "gan_on": _game(0.3),
    "normalized_long": [
        *_game(0.3),
        "tokenizer_training.steps=5500",
        "tokenizer.quantizer.num_codes=4096",
        "tokenizer_loss.perceptual=0.25",
    ],
    "best": [],
}
"""Name -> changes to the recipe cifar10; `best` is the recipe itself and takes most of an hour on one thread."""


def train_all(names: list[str], out: Path, data_root: str, jobs: int) -> None:
    """Train what is not trained yet, `jobs` processes at a time."""
    waiting, running = list(names), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            if (out / name / "finished").exists():
                continue
            running[name] = _start(name, out / name, data_root, threads=max(1, 2 // jobs))
        for name, process in list(running.items()):
            if process.poll() is not None:
                if process.returncode:
                    raise SystemExit(f"{name} failed; see {out / name}.log")
                (out / name / "finished").touch()
                del running[name]
        time.sleep(1)


def _start(name: str, run: Path, data_root: str, *, threads: int) -> "subprocess.Popen[bytes]":
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mage", "train-tokenizer", "--recipe", "cifar10", "--data-root", data_root]
    command += ["--out", str(run), "--json", "--set", f"name={name}"]
    for change in VARIANTS[name]:
        command += ["--set", change]
    command += ["--resume"] if any(run.glob("checkpoints/*.pt")) else []
    with open(f"{run}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": str(threads)})


def judge_all(names: list[str], out: Path, data_root: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure each variant on the test images, and draw the first ones of all of them."""
    train, test = (load_dataset("cifar10", split=split, data_root=data_root) for split in ("train", "test"))
    extractors = {"efflite0": PooledFeatures(efflite0()), "judge": judge_features(train, (32, 32))}
    rows = [("original", torch.stack([images.to_float(test.load(index)) for index in range(12)]))]
    reference: dict[str, FeatureStatistics] = {}
    for name in names:
        model = runs.load_tokenizer(out / name)
        quality = evaluate_tokenizer(
            model,
            test,
            extractors=extractors,
            reference=reference,
            perceptual=build_perceptual("efflite0"),
            perceptual_name="efflite0",
        )
        seconds = max(line["seconds"] for line in read_log(out / name) if "seconds" in line)
        rows.append((name, model.decode_tokens(model.encode(rows[0][1])).cpu()))
        yield name, quality.metrics | {"seconds": seconds}
    images.save_png(ROOT / "results" / "tokenizers.png", images.labelled_rows(rows))


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder where CIFAR-10 lies")
    parser.add_argument("--out", type=Path, default=Path("runs/tokenizers"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants to train")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    options = parser.parse_args()
    train_all(options.only, options.out, options.data_root, options.jobs)
    done = [name for name in VARIANTS if (options.out / name / "finished").exists()]
    path = ROOT / "results" / "tokenizers.json"
    metrics: dict[str, float] = json.loads(path.read_text())["metrics"] if path.is_file() else {}
    kept = ("psnr_db", "ssim", "perceptual", "codes_used", "perplexity_share", "fd_efflite0", "fd_judge", "seconds")
    timings: dict[str, float] = {}
    for name, found in judge_all(done, options.out, options.data_root):
        metrics |= {f"{name}.{key}": found[key] for key in kept}
        timings[name] = found["seconds"]
        print(name, {key: round(found[key], 4) for key in kept}, flush=True)
    protocol = {
        "psnr_db": "mean over the 10,000 test images",
        "fd": "10,000 reconstructions against the same 10,000 images; 0 is perfect; efflite0 at 64 px",
        "seconds": f"of training, {options.jobs} at a time on this machine, images read into memory",
    }
    command = "python studies/tokenizers.py --data-root data"
    record = Record(command=command, seed=0, protocol=protocol, timings=timings, metrics=metrics)
    path.write_text(json.dumps(record.as_dict(), indent=2) + "\n")


if __name__ == "__main__":
    main()
