"""Accuracy on corrupted images by kind and severity, and the mean corruption error.

mCE (Hendrycks and Dietterich 2019): for each kind, the error over all severities divided by that of a baseline, then
the mean over kinds; 1 is equal to the baseline. On official folders of ImageNet-C the baseline is AlexNet, whose errors
are published; otherwise it is another model measured in the same way.

Letters: n images, c channels, h w pixels, k classes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mage import images, rng
from mage.array_files import open_integers
from mage.data.datasets import ArrayDataset, ImageDataset, evenly, load_dataset
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.classification import Scorer, classification_accuracy
from mage.evaluation.corruptions import KINDS, OFFICIAL_NAMES, SEVERITIES, corrupt, ours
from mage.evaluation.features import labels_of
from mage.evaluation.metric import Description, Metric
from mage.evaluation.representation import (
    REPRESENTATION_PROTOCOLS,
    Representation,
    RepresentationProtocol,
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
        """mCE relative to the mean errors of a baseline. Raises ValueError if it has no error, or 0, for a kind."""
        check_baseline(baseline_error, self.accuracy)
        shares = [(1 - accuracy) / baseline_error[kind] for kind, accuracy in self.per_kind.items()]
        return sum(shares) / len(shares)


def check_baseline(error: Mapping[str, float], kinds: Iterable[str]) -> None:
    """Raise ValueError if a baseline has no error, or 0, for one of the kinds."""
    lacking = [kind for kind in kinds if not error.get(kind)]
    if lacking:
        raise ValueError(f"the baseline has no error for {', '.join(lacking)}")


def corruption_accuracy(
    classify: Scorer,
    dataset: ImageDataset,
    transform: TransformConfig,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    severities: Sequence[int] = SEVERITIES,
    batch_size: int = 256,
    seed: int = 0,
) -> CorruptionResult:
    """Accuracy on images corrupted in every way, after the transform. Memory does not grow with the data set.

    Raises NoClasses for a data set without labels.
    """
    labels_of(dataset)
    right = {(kind, severity): 0 for kind in kinds for severity in severities}
    clean, count = 0, 0
    for batch in evaluation_batches(dataset, build_transform(transform), batch_size=batch_size):
        pixels, labels = images.to_float(batch["images"]), batch["labels"]
        clean += _right(classify, pixels, labels)
        for kind, severity in right:
            numbers = zip(pixels, batch["index"].tolist(), strict=True)
            corrupted = [corrupt(image, kind, severity, rng.generator(seed, kind, index)) for image, index in numbers]
            rounded = images.to_uint8(torch.stack(corrupted), "truncate")  # as in the official files
            right[kind, severity] += _right(classify, images.to_float(rounded), labels)
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
    """Accuracy on official files in the layout of ImageNet-C or CIFAR-10-C; for the kinds that the folder has.

    clean: the images without corruptions. Raises ValueError as `official_sets`.
    """
    accuracies: dict[str, dict[int, float]] = {}
    for kind, severity, dataset in official_sets(folder, clean.class_names):
        accuracy = classification_accuracy(classify, dataset, transform, batch_size=batch_size, on_images=on_images)
        accuracies.setdefault(kind, {})[severity] = accuracy.top1
    uncorrupted = classification_accuracy(classify, clean, transform, batch_size=batch_size, on_images=on_images)
    return CorruptionResult(uncorrupted.top1, accuracies)


def official_sets(folder: Path, class_names: Sequence[str]) -> Iterator[tuple[str, int, ImageDataset]]:
    """(kind, severity, images) of ImageNet-C or CIFAR-10-C.

    ImageNet-C: KIND/SEVERITY/CLASS/*. CIFAR-10-C: KIND.npy, the severities one after the other, and labels.npy.
    Raises ValueError for a folder with neither, or with other classes.
    """
    names = {OFFICIAL_NAMES.get(kind, kind): kind for kind in KINDS}
    arrays = {kind: folder / f"{name}.npy" for name, kind in names.items() if (folder / f"{name}.npy").is_file()}
    folders = {kind: folder / name for name, kind in names.items() if (folder / name).is_dir()}
    if not arrays and not folders:
        raise ValueError(f"{folder} holds no corruption: neither folders nor .npy files named {', '.join(names)}")
    for kind, path in arrays.items():
        pixels, labels = _official_array(path, folder / "labels.npy", len(class_names))
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


def _official_array(path: Path, labels_path: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, h, w, c) and labels (n,) of a kind of CIFAR-10-C, memory-mapped. Raises ValueError for other files."""
    pixels, labels = open_integers(path), open_integers(labels_path)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) % len(SEVERITIES):
        raise ValueError(
            f"{path} holds {pixels.dtype} {pixels.shape}; CIFAR-10-C has uint8 (n, h, w, c), the images of "
            f"{len(SEVERITIES)} severities one after the other"
        )
    if labels.shape != (len(pixels),):
        raise ValueError(f"{labels_path} has the shape {labels.shape}; {path.name} has {len(pixels):,} images")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels of {labels_path} run from {labels.min()} to {labels.max()}, of {classes} classes")
    return pixels, labels


def baseline_error(name: str, *, official: bool) -> dict[str, float]:
    """Errors per kind of a baseline: "alexnet", or a JSON file of `mage robustness --out`.

    official: whether they are for the images of an official folder. Raises ValueError for alexnet without one, and for
    another file.
    """
    if name == "alexnet":
        if not official:
            raise ValueError(
                "AlexNet's errors are those on the official ImageNet-C: give its folder with --official, or as "
                "--baseline the JSON file of another model measured on the same corruptions"
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
    """Accuracy on test images with the corruptions of this library."""

    kinds: tuple[str, ...] = tuple(KINDS)
    severities: tuple[int, ...] = SEVERITIES
    test_images: int = 1000
    """Largest number of corrupted test images."""

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
        """Mean accuracy, by kind and severity in the details, and accuracy on the same images without corruptions."""
        dataset = evenly(subject.test_images, self.test_images)
        result = corruption_accuracy(
            subject.classifier, dataset, subject.transform, kinds=self.kinds, severities=self.severities,
            batch_size=subject.batch_size, seed=subject.seed,
        )  # fmt: skip
        amount = f"{len(self.kinds)} kinds x {len(self.severities)} severities on {len(dataset):,} test images"
        yield from self.numbers(result, "; ".join(filter(None, (subject.classifier_name, amount, ours(self.kinds)))))

    def numbers(self, result: CorruptionResult, protocol: str) -> Iterator[Metric]:
        """Metrics of a result, also on official images; protocol: starts with the name of the classifier."""
        details = {"accuracy": result.accuracy, "per_kind": result.per_kind}
        yield self.metric("corruption_accuracy", result.mean, protocol, **details)
        classifier = protocol.split(";")[0]
        yield self.metric("corruption_clean_accuracy", result.clean, f"{classifier}; the same images, not corrupted")
