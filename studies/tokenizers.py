"""Comparison of tokenizers of CIFAR-10: `python studies/tokenizers.py --data-root DATA --out runs/tokenizers`.

Trains variants of the small recipe (`--only` selects them), `--jobs` at a time with one thread each, compares them on
validation images, and writes results/tokenizers.json and one picture. Variants of a group have the same cost: network,
batch size and steps are equal. Of each group the one with the least fd_judge is chosen; the chosen ones and `best`, the
recipe itself, are then measured on test images, in rows that end in _test. Finished trainings are not repeated, and
interrupted ones are resumed.

The Frechet distances are of reconstructions to their originals, in the features of two networks: EfficientNet-Lite0,
which is also used by the perceptual loss, so that this distance is biased, and the judge, a small classifier trained on
the labelled training images, which no training loss uses.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from choices import RESULTS, Parts, ask
from torch import Tensor

from mage import images, pictures, runs
from mage.data.datasets import ImageDataset
from mage.evaluation.extractors import Extractor, build_extractor
from mage.evaluation.feature_statistics import FeatureStatistics
from mage.evaluation.judge import JudgeConfig, judge_extractor, judge_of
from mage.evaluation.tokenizer import evaluate_tokenizer
from mage.evaluation.tokenizer_metrics import TokenizerProtocol
from mage.runs.record import Record, write_record
from mage.tokenizers.perceptual import build_perceptual
from mage.training.runlog import read_log

QUANTIZER_STEPS = 800


PLAIN = [
    "tokenizer.quantizer.num_codes=1024",
    "tokenizer.quantizer.revive_below=0.05",
    "tokenizer_loss.perceptual=0.1",
    "tokenizer_loss.adversarial.weight=0",
]
"""Changes of the small comparisons to the recipe, which has the settings of `best`."""


def _quantizer(kind: str, *more: str) -> list[str]:
    return [*PLAIN, f"tokenizer.quantizer.kind={kind}", f"tokenizer_training.steps={QUANTIZER_STEPS}", *more]


def _adversarial(weight: float) -> list[str]:
    """A training with a discriminator after the first quarter, or with weight 0 without one."""
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
    "gan_off": _adversarial(0.0),
    "gan_on": _adversarial(0.3),
    "normalized_long": [
        *_adversarial(0.3),
        "tokenizer_training.steps=5500",
        "tokenizer.quantizer.num_codes=4096",
        "tokenizer_loss.perceptual=0.25",
    ],
    "best": [],
}
"""Name -> changes to the recipe cifar10; `best` is the recipe itself and takes most of an hour on one thread."""
GROUPS = (
    ("vq_plain", "vq", "ema", "normalized", "simvq", "fsq", "lfq"),
    ("gan_off", "gan_on"),
)
"""Variants that compete, because their training costs the same."""
SHOWN = ("psnr_db", "ssim", "perceptual", "codes_used", "perplexity_share", "fd_efflite0", "fd_judge", "seconds")
Extractors = tuple[Extractor, ...]


def train_all(names: list[str], out: Path, data_root: str, jobs: int, more: list[str]) -> None:
    """Train the variants that are not finished, `jobs` processes at a time."""
    waiting, running = list(names), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            if (out / name / "finished").exists():
                continue
            running[name] = _start(name, out / name, data_root, more, threads=max(1, 2 // jobs))
        for name, process in list(running.items()):
            if process.poll() is not None:
                if process.returncode:
                    raise SystemExit(f"{name} failed; see {out / name}.log")
                (out / name / "finished").touch()
                del running[name]
        time.sleep(1)


def _start(name: str, run: Path, data_root: str, more: list[str], *, threads: int) -> "subprocess.Popen[bytes]":
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mage", "train-tokenizer", "--recipe", "cifar10", "--data-root", data_root]
    command += ["--out", str(run), "--json", "--set", f"name={name}"]
    for change in (*VARIANTS[name], *more):
        command += ["--set", change]
    command += ["--resume"] if any(run.glob("checkpoints/*.pt")) else []
    with open(f"{run}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": str(threads)})


def measure_all(
    names: list[str], out: Path, dataset: ImageDataset, extractors: Extractors
) -> dict[str, dict[str, float]]:
    """Metrics of each variant on the images of a data set."""
    reference: dict[str, FeatureStatistics] = {}
    rows = {}
    for name in names:
        protocol = TokenizerProtocol(
            extractors, reference=reference, perceptual=build_perceptual("efflite0"), perceptual_name="efflite0"
        )
        quality = evaluate_tokenizer(runs.load_tokenizer(out / name), dataset, protocol)
        # all variants are measured on the same images, so that names can omit their number: rfd_judge_... -> fd_judge
        measured = {re.sub(r"^r(fd_[^_]+)_.*", r"\1", key): value for key, value in quality.metrics.items()}
        measured["seconds"] = max(line["seconds"] for line in read_log(out / name) if "seconds" in line)
        rows[name] = {key: measured[key] for key in SHOWN}
        print(name, f"on {len(dataset):,} images", {key: round(rows[name][key], 4) for key in SHOWN}, flush=True)
    return rows


def choose(rows: dict[str, dict[str, float]]) -> list[str]:
    """Of each group the variant with the least fd_judge. rows: metrics of every variant on validation images."""
    groups = ([name for name in group if name in rows] for group in GROUPS)
    return [min(group, key=lambda name: rows[name]["fd_judge"]) for group in groups if group]


def compare_variants(names: list[str], out: Path, parts: Parts, extractors: Extractors) -> dict[str, dict[str, float]]:
    """Rows of all variants on validation images, then of the chosen ones and the recipe on test images."""
    rows = measure_all(names, out, parts.validation, extractors)
    finals = [*choose(rows), *(["best"] if "best" in rows else [])]
    if finals:
        tested = measure_all(finals, out, parts.test, extractors)
        rows |= {f"{name}_test": values for name, values in tested.items()}
    return rows


def picture(names: list[str], out: Path, parts: Parts) -> Tensor:
    """The first validation images, and their reconstructions by each variant."""
    count = min(12, len(parts.validation))
    rows = [("original", torch.stack([images.to_float(parts.validation.load(index)) for index in range(count)]))]
    for name in names:
        model = runs.load_tokenizer(out / name)
        rows.append((name, model.decode_tokens(model.encode(rows[0][1])).cpu()))
    return pictures.labelled_rows(rows)


def main() -> None:
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder where CIFAR-10 lies")
    parser.add_argument("--out", type=Path, default=Path("runs/tokenizers"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants to train")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument(
        "--set", action="append", default=[], help="settings of every training, as of `mage train-tokenizer`"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record and the picture")
    options = parser.parse_args()
    ask(options.out, {"set": " ".join(options.set), "jobs": options.jobs})
    train_all(options.only, options.out, options.data_root, options.jobs, options.set)
    done = [name for name in VARIANTS if (options.out / name / "finished").exists()]
    options.results.mkdir(parents=True, exist_ok=True)
    parts = Parts(runs.load_tokenizer(options.out / done[0]), "cifar10", options.data_root)
    judge = judge_of(parts.train, (32, 32), JudgeConfig(mirror=True, epochs=8), cache=options.out)
    extractors = (build_extractor("efflite0"), judge_extractor(judge))
    rows = compare_variants(done, options.out, parts, extractors)
    images.save_png(options.results / "tokenizers.png", picture(done, options.out, parts))
    protocol = {
        "validation": parts.sentence("Variants were compared, and of each group the one of the least fd_judge chosen,"),
        "groups": "; ".join(", ".join(group) for group in GROUPS),
        "psnr_db": f"mean over the {len(parts.validation):,} validation images, of rows that end in _test over the "
        f"{len(parts.test):,} test images",
        "fd": "reconstructions of these images against the images; 0 is perfect; efflite0 at 64 px, judge: a "
        "classifier of the training images without the validation images",
        "seconds": f"of training, {options.jobs} at a time on this machine, images read into memory",
    }
    command = "python studies/tokenizers.py --data-root data" + "".join(f" --set {change}" for change in options.set)
    metrics = {f"{name}.{key}": value for name, values in rows.items() for key, value in values.items()}
    timings = {name: rows[name]["seconds"] for name in done}
    write_record(options.results / "tokenizers.json", Record(command, 0, protocol, timings, metrics))


if __name__ == "__main__":
    main()
