"""Which form of MAGE-C keeps generation intact? `python studies/mage_c.py --data-root DATA --model RUN --out OUT`.

RUN is MAGE without contrast (of studies/representations.py). Each form of the contrast goes on from its weights for
the same number of steps on the same pairs of views, one without contrast as the control; then 2,000 samples of each,
with one sampler, are compared with the test images (fd_efflite0), and features are probed: k-NN and least squares on
10,000 training images. Results go to results/mage_c.json. What is finished is not repeated.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import mage
from mage.data.datasets import load_dataset
from mage.data.transforms import TransformConfig
from mage.device import resolve_device
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

ROOT = Path(__file__).resolve().parent.parent
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
"""Settings under `contrastive`; the control contrasts with no weight to speak of, so that all else is equal."""
SAMPLES = 2000


def train(name: str, options: argparse.Namespace) -> Path:
    """Go on from RUN with one form of the contrast, unless it is done."""
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


def measure(folder: Path, options: argparse.Namespace, reference: Reference) -> dict[str, float]:
    """Samples and features of one model."""
    path = options.out / f"{folder.name}.json"
    if path.exists():
        found: dict[str, float] = json.loads(path.read_text())
        return found
    model = mage.load(folder)
    extractor = build_extractor("efflite0", device=model.device)
    metrics = compare(look_at_model(model, Production(SAMPLES, 0, 250), extractor), reference, "efflite0").metrics
    found = {name.split("_")[0]: value for name, value in metrics.items()}
    train_set, test_set = (load_dataset("cifar10", split=s, data_root=options.data_root) for s in ("train", "test"))
    features = [
        extract_features(model, data, TransformConfig(size=(32, 32)))
        for data in (random_subset(train_set, 10_000), test_set)
    ]
    found |= {"knn": knn(*features).accuracy, "linear": linear_probe(*features, protocol="ridge").accuracy}
    log = read_log(folder)
    found |= {"loss": next(line["valid/loss"] for line in reversed(log) if "valid/loss" in line)}
    path.write_text(json.dumps(found))
    return found


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
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    test = load_dataset("cifar10", split="test", data_root=options.data_root)
    device = resolve_device()
    seen = look_at_dataset(test, build_extractor("efflite0", device=device), size=(32, 32), batch_size=250)
    reference = Reference.of("test", seen)
    metrics = {f"before.{name}": value for name, value in measure(options.model, options, reference).items()}
    for name in options.only:
        print(name, found := measure(train(name, options), options, reference), flush=True)
        metrics |= {f"{name}.{key}": value for key, value in found.items()}
    protocol = {
        "forms": f"{options.steps} more steps from the same MAGE; "
        + "; ".join(f"{name}: {' '.join(changes)}" for name, changes in FORMS.items()),
        "fd": f"fd_efflite0 of {SAMPLES:,} samples against the 10,000 test images, the recipe's sampler",
        "knn, linear": "weighted k-NN and least squares, 10,000 training images, all test images",
        "loss": "reconstruction of held-out images",
    }  # fmt: skip
    seconds = {name: max(line.get("seconds", 0.0) for line in read_log(options.out / name)) for name in options.only}
    command = f"python studies/mage_c.py --data-root data --model RUN --tokens RUN/tokens --steps {options.steps}"
    command += "".join(f" --set {change}" for change in options.set)
    write_record(ROOT / "results" / "mage_c.json", Record(command, 0, protocol, seconds, metrics))


if __name__ == "__main__":
    main()
