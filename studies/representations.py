"""MAGE, MAGE-C, MAE, SimCLR and MaskGIT on CIFAR-10 at equal wall time, by every protocol.

    python studies/representations.py --data-root DATA --tokenizer RUN --out runs/representations

Each method first runs for a few steps, alone on the machine, to measure its speed, and then for as many steps as fit
into `--minutes`, so that its learning rate schedule is complete. Tokenizer and token cache are shared by the methods on
tokens and are not counted; their seconds are in the record. Then all protocols of `mage evaluate representations` are
run, including fine-tuning: as in the published tables, the row of every method is measured on test images, and nothing
is chosen by them. Finished steps are not repeated. Results are written to results/representations.json, and a
comparison of the runs to OUT/comparison.html.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from choices import NO_CHOICE, RESULTS, ask, place, stated
from torch import Tensor

from mage.data.datasets import load_dataset
from mage.data.transforms import TransformConfig
from mage.evaluation.features import extract_features
from mage.evaluation.fewshot import few_shot
from mage.evaluation.knn import knn
from mage.evaluation.linear_probe import linear_probe
from mage.nn.backbones import PooledFeatures, efflite0
from mage.recipes import named
from mage.recipes.resolve import from_yaml
from mage.runs import load_tokenizer
from mage.runs.record import Record, write_record
from mage.training.runlog import read_log

METHODS = {
    "mage": "cifar10-crops",
    "mage_c": "cifar10-mage-c",
    "mae": "cifar10-mae",
    "simclr": "cifar10-simclr",
    "maskgit": "cifar10-maskgit",
}
TRIAL_STEPS = 60
NAMES = {
    "linear": "linear_probe_accuracy",
    "knn": "knn_accuracy",
    "fewshot25": "fewshot25_accuracy",
    "attentive": "attentive_probe_accuracy",
    "finetune": "finetune_accuracy",
    "corruption": "corruption_accuracy",
    "corruption_clean": "corruption_clean_accuracy",
    "pgd": "pgd_linf_1_accuracy",
    "fgsm": "fgsm_linf_1_accuracy",
    "attack_clean": "attack_clean_accuracy",
}
"""Metric of the record -> metric of `mage evaluate representations`."""


def call(*words: object) -> None:
    """Run a command of this library."""
    subprocess.run([sys.executable, "-m", "mage", *map(str, words)], check=True)


def pretrain_words(method: str, options: argparse.Namespace, out: Path) -> list[object]:
    """Arguments of the command that pre-trains a method."""
    words: list[object] = ["pretrain", "--recipe", METHODS[method], "--out", out, "--data-root", options.data_root]
    if named(METHODS[method]).method.reads == "tokens":
        words += ["--tokenizer", options.tokenizer, "--data", options.out / "tokens"]
    else:
        words += ["--workers", options.workers]
    return words + [word for change in options.set for word in ("--set", change)]


def steps_that_fit(method: str, options: argparse.Namespace) -> int:
    """Number of steps that fit into `--minutes`, from the last two thirds of a short run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "trial"
        words = pretrain_words(method, options, out)
        words += ["--set", f"pretraining.steps={TRIAL_STEPS}", "--set", "run.log_every=20"]
        call(*words, "--set", "data.online_images=0")
        seconds = {line["step"]: line["seconds"] for line in read_log(out) if "seconds" in line}
    pace = (seconds[TRIAL_STEPS] - seconds[20]) / (TRIAL_STEPS - 20)
    return max(100, round(60 * options.minutes / pace / 10) * 10)


def pretrain(method: str, options: argparse.Namespace) -> None:
    """Pre-train a method in its run folder, unless this is finished."""
    out = options.out / method
    if (out / "finished").exists():
        return
    plan = out / "steps.json"
    if not plan.exists():
        out.mkdir(parents=True, exist_ok=True)
        plan.write_text(json.dumps(steps_that_fit(method, options)))
    steps = int(json.loads(plan.read_text()))
    words = pretrain_words(method, options, out)
    words += ["--set", f"pretraining.steps={steps}", "--set", f"run.observe_every={max(1, steps // 4)}"]
    words += ["--resume"] if any(out.glob("checkpoints/*.pt")) else []
    call(*words)
    (out / "finished").touch()


def evaluated(out: Path) -> bool:
    """Whether all protocols were run; fine-tuning is the last one, and the others are kept before it."""
    path = out / "representations.json"
    return path.exists() and "finetune_accuracy" in json.loads(path.read_text())["metrics"]


def evaluate(method: str, options: argparse.Namespace) -> None:
    """Run all protocols, unless this is finished."""
    out = options.out / method
    if evaluated(out):
        return
    words: list[object] = ["evaluate", "representations", "--model", out, "--data", "cifar10", "--out", out]
    words += ["--data-root", options.data_root, "--finetune", "small", "--finetune-set", *options.finetune_set]
    words += ["--corruption-images", options.corruption_images, "--attack-images", options.attack_images]
    words += ["--workers", options.workers]
    call(*words)


def references(options: argparse.Namespace) -> dict[str, float]:
    """Accuracies of baselines: raw pixels, and a network pre-trained on ImageNet.

    That network is also measured on reconstructions of the tokenizer, which have all the information that MAGE gets.
    """
    path = options.out / "references.json"
    if path.exists():
        stored: dict[str, float] = json.loads(path.read_text())
        return stored
    accuracies = {}
    sets = [load_dataset("cifar10", split=split, data_root=options.data_root) for split in ("train", "test")]
    network, tokenizer = PooledFeatures(efflite0(), size=64), load_tokenizer(options.tokenizer)
    describers: dict[str, Callable[[Tensor], Tensor]] = {
        "raw_pixels": lambda x: x.flatten(1),
        "efflite0": network,
        "efflite0_after_tokenizer": lambda x: network(tokenizer.decode_tokens(tokenizer.encode(x)).float()),
    }
    for name, describe in describers.items():
        train, test = (extract_features(describe, dataset, TransformConfig(size=(32, 32))) for dataset in sets)
        accuracies[f"{name}.linear_ridge"] = linear_probe(train, test, protocol="ridge").accuracy
        accuracies[f"{name}.knn"] = knn(train, test).accuracy
        accuracies[f"{name}.fewshot25_lbfgs"] = few_shot(train, test, counts=(25,))[0].mean
    path.write_text(json.dumps(accuracies))
    return accuracies


def record(options: argparse.Namespace, more: str) -> None:
    """Write the results so far."""
    metrics: dict[str, float] = {}
    timings: dict[str, float] = {}
    for method in METHODS:
        path = options.out / method / "representations.json"
        log = read_log(options.out / method) if (options.out / method / "metrics.jsonl").exists() else []
        if log:
            seconds = max(line["seconds"] for line in log if "seconds" in line)
            batch = from_yaml(options.out / method / "recipe.yaml").pretraining.batch_size
            watched = [line for line in log if "online/knn" in line]
            for name in ("knn", "linear") if watched else ():
                metrics[f"{method}.online_{name}"] = watched[-1][f"online/{name}"]
            metrics[f"{method}.images_seen"] = float(batch * max(line["step"] for line in log))
            metrics[f"{method}.pretrain_seconds"] = timings[f"{method} pretrain"] = seconds
        if evaluated(path.parent):
            values = json.loads(path.read_text())
            metrics |= {f"{method}.{name}": values["metrics"][long] for name, long in NAMES.items()}
            metrics |= {f"{method}.{key}": value for key, value in values["metrics"].items() if key.startswith("pgd")}
            timings[f"{method} evaluate"] = sum(values["timings"].values())
    metrics |= references(options)
    protocol = {
        "validation": NO_CHOICE,
        "linear": "L-BFGS logistic regression, mean of the tokens, all training images as fixed crops, all test images",
        "linear_ridge": "least squares, for the references",
        "knn": "weighted k-NN by cosine, k chosen on training images",
        "fewshot25": "25 images per class, 5 draws",
        "fewshot25_lbfgs": "the same for the references",
        "online": "while pre-training: k-NN (k = 20) and least squares on training images, held-out images",
        "finetune": f"recipe small, {' '.join(options.finetune_set)}",
        "corruption": "logistic regression on frozen features, 15 kinds x 5 severities, "
        f"{options.corruption_images:,} test images",
        "pgd": f"the same classifier, l-infinity 1/255, 10 steps, {options.attack_images:,} test images; the strongest "
        "of attacks through the classifier, on the latent, and FGSM",
        "equal time": f"{options.minutes:g} minutes of pre-training each on {options.share}; tokens given",
    }
    command = (
        f"python studies/representations.py --data-root data --tokenizer runs/tokenizer --minutes {options.minutes:g}"
    )
    command += "".join(f" --set {change}" for change in options.set) + more
    write_record(options.results / "representations.json", Record(command, 0, protocol, timings, metrics))


def main() -> None:
    """Tokenize, pre-train, evaluate, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder where CIFAR-10 lies")
    parser.add_argument("--tokenizer", required=True, type=Path, help="run of a trained tokenizer of CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("runs/representations"), help="folder of the runs")
    parser.add_argument("--minutes", type=float, default=20.0, help="pre-training of each method")
    parser.add_argument("--set", action="append", default=[], help="settings of every pre-training")
    parser.add_argument("--finetune-set", nargs="+", default=["optim.epochs=5"], help="settings of fine-tuning")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that read images for MAE, SimCLR, fine-tuning"
    )
    parser.add_argument("--share", default="the whole machine", help="what each pre-training had, for the record")
    parser.add_argument("--corruption-images", type=int, default=1000, help="test images corrupted in every way")
    parser.add_argument("--attack-images", type=int, default=500, help="test images attacked")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), help="methods to run")
    parser.add_argument("--train-only", action="store_true", help="leave the protocols for another day")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    request = {"tokenizer": place(options.tokenizer), "minutes": options.minutes, "set": " ".join(options.set)}
    if not options.train_only:
        images = {"corruption_images": options.corruption_images, "attack_images": options.attack_images}
        request |= {"finetune_set": " ".join(options.finetune_set)} | images
    ask(options.out, request)
    if not (options.out / "tokens").exists():
        start = time.perf_counter()
        words = ("--tokenizer", options.tokenizer, "--data-root", options.data_root, "--out", options.out / "tokens")
        call("tokenize", "--recipe", "cifar10-crops", *words, *(w for change in options.set for w in ("--set", change)))
        (options.out / "tokenize.json").write_text(json.dumps(time.perf_counter() - start))
    for method in options.only:
        pretrain(method, options)
    if options.train_only:
        return
    for method in options.only:
        evaluate(method, options)
        record(options, stated(parser, options, "finetune_set", "corruption_images", "attack_images"))
    runs = [options.out / method for method in METHODS if evaluated(options.out / method)]
    if len(runs) > 1:
        call("compare", *runs, "--out", options.out / "comparison.html")


if __name__ == "__main__":
    main()
