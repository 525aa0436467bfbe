"""Domain adaptation: `python studies/adaptation.py --data-root DATA --model RUN --out OUT`.

RUN is MAGE of CIFAR-10 with its tokenizer. Its pre-training is continued, without labels, on images of another kind
(`mage pretrain --init-from`; default: 4,000 handwritten digits, which are new to its tokenizer too). The control is a
network of the same size that is trained on them from random weights with as many steps. Linear probe and k-NN on both
data sets, before and after, are written to results/adaptation.json: every row is measured on test images, and nothing
is chosen by them. Finished trainings and measurements are not repeated.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from choices import NO_CHOICE, RESULTS, ask, place

import mage
from mage.data.datasets import load_dataset
from mage.data.transforms import TransformConfig
from mage.evaluation.features import extract_features
from mage.evaluation.knn import knn
from mage.evaluation.linear_probe import linear_probe
from mage.runs.generation import random_subset
from mage.runs.record import Record, write_record
from mage.training.runlog import read_log

OLD, MOST = "cifar10", 10_000
"""Data set of RUN, and largest number of training images of the probes."""


def call(*words: object) -> None:
    """Run a command of this library."""
    subprocess.run([sys.executable, "-m", "mage", *map(str, words)], check=True)


def train(name: str, options: argparse.Namespace) -> Path:
    """Pre-train on the new images, from RUN's weights or from random ones, unless this is finished."""
    out: Path = options.out / name
    recipe = ["--config", options.model / "recipe.yaml", "--tokenizer", options.model, "--data-root", options.data_root]
    changes = [f"data.name={options.data}", "data.transform.augmentation=none", "data.views=1", "data.online_images=0"]
    changes += [f"pretraining.steps={options.steps}", f"run.observe_every={options.steps}", *options.set]
    words = [*recipe, *(word for change in changes for word in ("--set", change))]
    call("tokenize", *words, "--out", options.out / "tokens")
    if not (out / "finished").exists():
        words += ["--init-from", options.model] if name == "adapted" else []
        words += ["--resume"] if any(out.glob("checkpoints/*.pt")) else []
        call("pretrain", *words, "--data", options.out / "tokens", "--out", out)
        (out / "finished").touch()
    return out


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Linear probe and k-NN on the old and the new images."""
    path: Path = options.out / f"{name}.json"
    if path.exists():
        stored: dict[str, float] = json.loads(path.read_text())
        return stored
    model, accuracies = mage.load(folder), {}
    for kind, data in (("old", OLD), ("new", options.data)):
        train_set, test_set = (
            load_dataset(data, split=split, data_root=options.data_root, channels=model.channels)
            for split in ("train", "test")
        )
        few = random_subset(train_set, min(MOST, len(train_set)))
        pair = [extract_features(model, images, TransformConfig(size=model.image_size)) for images in (few, test_set)]
        accuracies[f"{kind}_linear"] = linear_probe(*pair, protocol="lbfgs").accuracy
        accuracies[f"{kind}_knn"] = knn(*pair).accuracy
    path.write_text(json.dumps(accuracies))
    return accuracies


def main() -> None:
    """Train, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder where CIFAR-10 lies")
    parser.add_argument("--model", required=True, type=Path, help="finished run of MAGE, with its tokenizer")
    parser.add_argument("--data", default="mnist5k", help="the new images, by name or as a folder")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"), help="folder of the runs")
    parser.add_argument("--steps", type=int, default=300, help="steps of each training")
    parser.add_argument("--set", action="append", default=[], help="settings of both trainings, as of `mage pretrain`")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    request = {"model": place(options.model), "data": place(options.data)}
    ask(options.out, request | {"steps": options.steps, "set": " ".join(options.set)})
    metrics, seconds = {}, {}
    for name in ("before", "adapted", "from_scratch"):
        folder = options.model if name == "before" else train(name, options)
        print(name, accuracies := measure(name, folder, options), flush=True)
        metrics |= {f"{name}.{key}": value for key, value in accuracies.items()}
        if name != "before":
            seconds[name] = max(line.get("seconds", 0.0) for line in read_log(folder))
    protocol = {
        "validation": NO_CHOICE,
        "models": f"before: of {OLD}; adapted: {options.steps} more steps on {options.data}; from_scratch: as many "
        "steps on it from random weights; all with the tokenizer of before",
        "linear, knn": f"logistic regression and weighted k-NN on frozen features, at most {MOST:,} training images, "
        f"all test images; old: {OLD}, new: {options.data}",
    }
    command = f"python studies/adaptation.py --data-root data --model RUN --data {options.data} --steps {options.steps}"
    command += "".join(f" --set {change}" for change in options.set)
    write_record(options.results / "adaptation.json", Record(command, 0, protocol, seconds, metrics))


if __name__ == "__main__":
    main()
