"""Forms of MAGE-C and their effect on generation: `python studies/mage_c.py --data-root DATA --model RUN --out OUT`.

RUN is MAGE without contrast (of studies/representations.py). Its training is continued with each form of the contrast
for the same number of steps on the same pairs of views; the control is one without contrast. All forms are compared on
validation images: the distance of samples of one sampler to them (fd_efflite0), and k-NN and least squares on features
of 10,000 training images. Of the forms that keep generation intact (a distance at most 2 % above the control's), the
one with the best least squares is chosen; it, the control and RUN are then measured on test images, with other random
numbers, in rows that end in _test. Results are written to results/mage_c.json. Finished trainings are not repeated.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from choices import RESULTS, Parts, ask, place

import mage
from mage.data.datasets import ImageDataset
from mage.data.transforms import TransformConfig
from mage.evaluation.extractors import build_extractor
from mage.evaluation.features import extract_features
from mage.evaluation.generation import compare
from mage.evaluation.knn import knn
from mage.evaluation.linear_probe import linear_probe
from mage.evaluation.seen import Reference
from mage.runs.generation import look_at_dataset, look_at_model, random_subset
from mage.runs.production import Production
from mage.runs.record import Record, write_record
from mage.training.runlog import read_log

FORMS: dict[str, list[str]] = {
    "control": ["weight=1e-9"],
    "published": ["weight=0.1"],
    "weight_0.3": ["weight=0.3"],
    "weight_0.03": ["weight=0.03"],
    "low_ratios": ["weight=0.1", "max_ratio=0.7"],
    "falling": ["weight=0.1", "schedule=falling"],
    "rising": ["weight=0.1", "schedule=rising"],
    "stop_gradient": ["weight=0.1", "stop_gradient=true"],
    "shared_ratio": ["weight=0.1", "share_ratio=true"],
}
"""Settings under `contrastive`; the control has a negligible weight of the contrast, so that all else is equal."""
SAMPLES, LABELLED = 2000, 10_000
"""Samples of each form, and largest number of training images of the probes."""
INTACT = 1.02
"""Largest ratio of the distance to the control's at which generation counts as intact."""


def train(name: str, options: argparse.Namespace) -> Path:
    """Continue the training of RUN with one form of the contrast, unless this is finished."""
    out: Path = options.out / name
    if not (out / "finished").exists():
        words = ["pretrain", "--recipe", "cifar10-mage-c", "--tokenizer", options.model, "--data", options.tokens]
        words += ["--data-root", options.data_root, "--init-from", options.model, "--out", out]
        for change in FORMS[name]:
            words += ["--set", f"method.contrastive.{change}"]
        for change in options.set:
            words += ["--set", change]
        words += ["--set", f"pretraining.steps={options.steps}", "--set", f"run.observe_every={options.steps}"]
        words += ["--set", "data.online_images=0"]
        words += ["--resume"] if any(out.glob("checkpoints/*.pt")) else []
        subprocess.run([sys.executable, "-m", "mage", *map(str, words)], check=True)
        (out / "finished").touch()
    return out


def measure(folder: Path, name: str, parts: Parts, options: argparse.Namespace, *, final: bool) -> dict[str, float]:
    """Metrics of a model on validation images; final: on test images, with other samples."""
    path = options.out / f"{name}_{'test' if final else 'validation'}.json"
    if path.exists():
        stored: dict[str, float] = json.loads(path.read_text())
        return stored
    metrics = look(folder, parts.train, parts.test if final else parts.validation, options.samples, seed=int(final))
    log = read_log(folder)
    metrics["loss"] = next(line["valid/loss"] for line in reversed(log) if "valid/loss" in line)
    path.write_text(json.dumps(metrics))
    return metrics


def look(folder: Path, train: ImageDataset, real: ImageDataset, samples: int, *, seed: int) -> dict[str, float]:
    """Distance of samples to real images, and accuracy on these of probes trained on the training images."""
    model = mage.load(folder)
    extractor = build_extractor("efflite0", device=model.device)
    seen = look_at_dataset(real, extractor, size=model.image_size, batch_size=250, device=model.device)
    generated = look_at_model(model, Production(samples, seed, 250), extractor)
    metrics = {
        name.split("_")[0]: value
        for name, value in compare(generated, Reference.of("real", seen), "efflite0").metrics.items()
    }
    features = [
        extract_features(model, data, TransformConfig(size=model.image_size))
        for data in (random_subset(train, min(LABELLED, len(train))), real)
    ]
    return metrics | {"knn": knn(*features).accuracy, "linear": linear_probe(*features, protocol="ridge").accuracy}


def choose(rows: dict[str, dict[str, float]]) -> str:
    """The form with the best least squares among those that keep generation intact, else that of the least distance.

    rows: metrics of every form and of the control on validation images.
    """
    forms = [name for name in rows if name not in ("before", "control")]
    intact = [name for name in forms if rows[name]["fd"] <= INTACT * rows["control"]["fd"]]
    if intact:
        return max(intact, key=lambda name: rows[name]["linear"])
    return min(forms, key=lambda name: rows[name]["fd"])


def compare_forms(parts: Parts, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Rows of all forms on validation images, then of RUN, the control and the chosen form on test images."""
    folders = {"before": options.model} | {name: train(name, options) for name in options.only}
    rows: dict[str, dict[str, float]] = {}
    for name, folder in folders.items():
        rows[name] = measure(folder, name, parts, options, final=False)
        print(name, rows[name], flush=True)
    finals = ["before"]
    if "control" in rows and len(rows) > 2:
        finals += ["control", choose(rows)]
    for name in finals:
        rows[f"{name}_test"] = measure(folders[name], name, parts, options, final=True)
        print(name, "on test images", rows[f"{name}_test"], flush=True)
    return rows


def main() -> None:
    """Train, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder where CIFAR-10 lies")
    parser.add_argument("--model", required=True, type=Path, help="finished run of MAGE, with its tokenizer")
    parser.add_argument("--tokens", required=True, type=Path, help="token cache of several views, as of cifar10-crops")
    parser.add_argument("--out", type=Path, default=Path("runs/mage_c"), help="folder of the runs")
    parser.add_argument("--steps", type=int, default=250, help="steps of each form")
    parser.add_argument(
        "--set",
        action="append",
        default=["pretraining.base_learning_rate=3.5e-3"],
        help="settings of every training, as of `mage pretrain`",
    )
    parser.add_argument("--only", nargs="+", choices=FORMS, default=list(FORMS), help="forms to run")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="samples of each form")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.results.mkdir(parents=True, exist_ok=True)
    request = {"model": place(options.model), "tokens": place(options.tokens), "steps": options.steps}
    ask(options.out, request | {"set": " ".join(options.set), "samples": options.samples})
    parts = Parts(mage.load(options.model), "cifar10", options.data_root)
    rows = compare_forms(parts, options)
    metrics = {f"{name}.{key}": value for name, values in rows.items() for key, value in values.items()}
    protocol = {
        "validation": parts.sentence(
            "Forms were compared, and the one of the best least squares among those whose fd is at most "
            f"{INTACT:g} times the control's chosen,"
        ),
        "forms": f"{options.steps} more steps from the same MAGE; "
        + "; ".join(f"{name}: {' '.join(changes)}" for name, changes in FORMS.items()),
        "fd": f"fd_efflite0 of {options.samples:,} samples against the {len(parts.validation):,} validation images, "
        f"of rows that end in _test other samples against the {len(parts.test):,} test images; the recipe's sampler",
        "knn, linear": f"weighted k-NN and least squares, {min(LABELLED, len(parts.train)):,} training images, all "
        "validation or test images",
        "loss": "reconstruction of held-out images",
    }
    seconds = {name: max(line.get("seconds", 0.0) for line in read_log(options.out / name)) for name in options.only}
    command = f"python studies/mage_c.py --data-root data --model RUN --tokens RUN/tokens --steps {options.steps}"
    command += "".join(f" --set {change}" for change in options.set)
    write_record(options.results / "mage_c.json", Record(command, 0, protocol, seconds, metrics))


if __name__ == "__main__":
    main()
