"""How a classifier does on corrupted images: accuracy per kind and severity, and the mean corruption error.

mCE (Hendrycks and Dietterich 2019): for each kind, the errors of all severities over those of a named baseline, then
the mean over kinds; 1 is as bad as the baseline. On official folders of ImageNet-C the baseline is AlexNet, whose
errors are published; otherwise it is another model measured in the same way.

Letters: n images, c channels, h w pixels, k classes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mage import images, rng
from mage.data.datasets import ArrayDataset, ImageDataset, load_dataset
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.classification import Scorer, classification_accuracy
from mage.evaluation.corruptions import KINDS, OFFICIAL_NAMES, SEVERITIES, corrupt, ours
from mage.evaluation.metric import Description, Metric
from mage.evaluation.representation import (
    REPRESENTATION_PROTOCOLS,
    Representation,
    RepresentationProtocol,
    evenly,
)

ALEXNET_ERROR = dict(
    zip(
        KINDS,
        (0.886, 0.894, 0.923, 0.820, 0.826, 0.786, 0.798, 0.867, 0.827, 0.819, 0.565, 0.853, 0.646, 0.718, 0.607),
        strict=True,
    )
)
"""Mean top-1 error of AlexNet over the five severities of ImageNet-C (Hendrycks and Dietterich 2019, table 1)."""
OnImages = Callable[[int], None]


@dataclass(frozen=True)
class CorruptionResult:
    """Accuracies from 0 to 1."""

    clean: float
    accuracy: dict[str, dict[int, float]] = field(default_factory=dict)
    """Kind -> severity -> accuracy."""

    @property
    def mean(self) -> float:
        """Mean accuracy over kinds and severities."""
        return sum(self.per_kind.values()) / len(self.accuracy)

    @property
    def per_kind(self) -> dict[str, float]:
        """Mean accuracy of each kind over its severities."""
        return {kind: sum(shares.values()) / len(shares) for kind, shares in self.accuracy.items()}

    def mean_corruption_error(self, baseline_error: dict[str, float]) -> float:
        """mCE relative to the mean errors of a baseline. Raises ValueError where it lacks a kind or is perfect."""
        lacking = [kind for kind in self.accuracy if not baseline_error.get(kind)]
        if lacking:
            raise ValueError(f"the baseline has no error for {', '.join(lacking)}")
        shares = [(1 - accuracy) / baseline_error[kind] for kind, accuracy in self.per_kind.items()]
        return sum(shares) / len(shares)


def corruption_accuracy(
    classify: Scorer,
    dataset: ImageDataset,
    transform: TransformConfig,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    severities: Sequence[int] = SEVERITIES,
    batch_size: int = 256,
    seed: int = 0,
    on_images: OnImages | None = None,
) -> CorruptionResult:
    """Corrupt every image in every way, at the model's size, and classify. Memory does not grow with the data set."""
    if dataset.labels is None:
        raise ValueError(f"{dataset.name} has no labels: put each class's images into a folder of its own")
    right = {(kind, severity): 0 for kind in kinds for severity in severities}
    clean, count = 0, 0
    for batch in evaluation_batches(dataset, build_transform(transform), batch_size=batch_size):
        pixels, labels = images.to_float(batch["images"]), batch["labels"]
        clean += _right(classify, pixels, labels)
        for kind, severity in right:
            numbers = zip(pixels, batch["index"].tolist(), strict=True)
            changed = [corrupt(one, kind, severity, rng.generator(seed, kind, index)) for one, index in numbers]
            held = images.to_uint8(torch.stack(changed), "truncate")  # as the official files hold them
            right[kind, severity] += _right(classify, images.to_float(held), labels)
            if on_images is not None:
                on_images(len(labels))
        count += len(labels)
    accuracy = {kind: {severity: right[kind, severity] / count for severity in severities} for kind in kinds}
    return CorruptionResult(clean / count, accuracy)


def official_corruption_accuracy(
    classify: Scorer,
    clean: ImageDataset,
    folder: Path,
    transform: TransformConfig,
    *,
    batch_size: int = 256,
    on_images: OnImages | None = None,
) -> CorruptionResult:
    """The same on official files, in the layout of ImageNet-C or CIFAR-10-C; only the kinds that are there."""
    accuracies: dict[str, dict[int, float]] = {}
    for kind, severity, dataset in official_sets(folder, clean.class_names):
        accuracy = classification_accuracy(classify, dataset, transform, batch_size=batch_size, on_images=on_images)
        accuracies.setdefault(kind, {})[severity] = accuracy.top1
    plain = classification_accuracy(classify, clean, transform, batch_size=batch_size, on_images=on_images)
    return CorruptionResult(plain.top1, accuracies)


def official_sets(folder: Path, class_names: Sequence[str]) -> Iterator[tuple[str, int, ImageDataset]]:
    """(kind, severity, images) of ImageNet-C or CIFAR-10-C.

    ImageNet-C: KIND/SEVERITY/CLASS/*. CIFAR-10-C: KIND.npy, the severities one after the other, and labels.npy.
    Raises ValueError where neither is found, or the classes are others than the model's.
    """
    names = {OFFICIAL_NAMES.get(kind, kind): kind for kind in KINDS}
    arrays = {kind: folder / f"{name}.npy" for name, kind in names.items() if (folder / f"{name}.npy").is_file()}
    folders = {kind: folder / name for name, kind in names.items() if (folder / name).is_dir()}
    if not arrays and not folders:
        raise ValueError(f"{folder} holds no corruption: neither folders nor .npy files named {', '.join(names)}")
    for kind, path in arrays.items():
        labels, pixels = np.load(folder / "labels.npy"), np.load(path, mmap_mode="r")
        part = len(pixels) // len(SEVERITIES)
        for severity in SEVERITIES:
            chosen = slice((severity - 1) * part, severity * part)
            tensor = torch.from_numpy(np.array(pixels[chosen])).permute(0, 3, 1, 2).contiguous()
            name = f"{path.name} {severity}"
            yield kind, severity, ArrayDataset(name, tensor, labels[chosen].astype(np.int64), tuple(class_names))
    for kind, path in folders.items():
        for severity in SEVERITIES:
            dataset = load_dataset(str(path / str(severity)), split="all", channels=3)
            if dataset.class_names != tuple(class_names):
                raise ValueError(f"{path / str(severity)} has other classes than the data set")
            yield kind, severity, dataset


def baseline_error(name: str, *, official: bool) -> dict[str, float]:
    """Errors per kind of a named baseline: "alexnet", or the JSON file that `mage robustness --out` wrote.

    official: whether they are for the images of an official folder. Raises ValueError for alexnet where they are not.
    """
    if name == "alexnet":
        if not official:
            raise ValueError(
                "AlexNet's errors are those on the official ImageNet-C: give its folder with --official, or as "
                "--baseline the JSON of another model measured on the same made corruptions"
            )
        return ALEXNET_ERROR
    try:
        values: dict[str, Any] = json.loads(Path(name).read_text())
        return {
            kind: 1 - float(accuracy) for kind, accuracy in values["details"]["corruption_accuracy"]["per_kind"].items()
        }
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{name} is neither alexnet nor a result of `mage robustness --out` ({type(error).__name__})"
        ) from None


def _right(classify: Scorer, pixels: torch.Tensor, labels: torch.Tensor) -> int:
    return int((classify(pixels).argmax(dim=1).cpu() == labels).sum())


@REPRESENTATION_PROTOCOLS.register("corruptions")
@dataclass(frozen=True)
class Corruptions(RepresentationProtocol):
    """A classifier on test images that this library corrupts."""

    kinds: tuple[str, ...] = tuple(KINDS)
    severities: tuple[int, ...] = SEVERITIES
    test_images: int = 1000
    """Test images, at most, that are corrupted."""

    uses_features: ClassVar = False
    metrics: ClassVar = {
        "corruption_accuracy": Description(
            "Corrupted images",
            "Mean accuracy on test images under noise, blur, weather and digital damage, over kinds and severities.",
            "share",
            "higher",
        ),
        "corruption_clean_accuracy": Description(
            "The same images, clean", "Accuracy on the images that were corrupted, before they were.", "share"
        ),
        "mean_corruption_error": Description(
            "Mean corruption error",
            "Errors on corrupted images over those of the baseline; 1 is as bad.",
            better="lower",
        ),
    }

    def measure(self, subject: Representation) -> Iterator[Metric]:
        """Mean accuracy, with that of each kind and severity as details, and accuracy on the same images untouched."""
        dataset = evenly(subject.test_images, self.test_images)
        result = corruption_accuracy(
            subject.classifier, dataset, subject.transform, kinds=self.kinds, severities=self.severities,
            batch_size=subject.batch_size, seed=subject.seed,
        )  # fmt: skip
        amount = f"{len(self.kinds)} kinds x {len(self.severities)} severities on {len(dataset):,} test images"
        yield from self.numbers(result, "; ".join(filter(None, (subject.classifier_name, amount, ours(self.kinds)))))

    def numbers(self, result: CorruptionResult, protocol: str) -> Iterator[Metric]:
        """Those of a result, also of one on official images; protocol: begins with the name of the classifier."""
        details = {"accuracy": result.accuracy, "per_kind": result.per_kind}
        yield self.metric("corruption_accuracy", result.mean, protocol, **details)
        classifier = protocol.split(";")[0]
        yield self.metric("corruption_clean_accuracy", result.clean, f"{classifier}; the same images, not corrupted")
