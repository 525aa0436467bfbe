"""A classifier of images, kept in a folder: a frozen model with a linear head. A fine-tuned model is read as one, too.

classifier.json          pool, cut of the images, names of the classes
classifier.safetensors   the head: mean and deviation of the features, weight, bias
model/                   the model whose features the head scores

Letters: n images, c channels, h w pixels, k classes, d feature width.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from mage import atomic, images
from mage.array_files import regular_size
from mage.data.transforms import TransformConfig, build_transform, evaluation_transform
from mage.evaluation.linear_head import LinearHead
from mage.inputs import as_images
from mage.models import Classifier
from mage.models.pooling import Pool
from mage.pipeline import Mage, load
from mage.settings import from_dict, to_dict
from mage.store.files import CLASSIFIER
from mage.store.fitting import read_tensors
from mage.tokenizers.base import weights_fingerprint

FORMAT = 1
CONFIG, HEAD, PROBED = CLASSIFIER, "classifier.safetensors", "representations.json"
FILES = ("model", CONFIG, HEAD, PROBED, "report.html")
"""What is written for a classifier; other files in its folder are somebody else's."""
MOST_BYTES = 2**24
"""Largest size of classifier.json: a million class names."""


@dataclass(frozen=True)
class ClassifierConfig:
    """What classifier.json holds."""

    format: int
    class_names: tuple[str, ...]
    pool: Pool = "mean"
    """Mean of the tokens, the class token, or both."""
    resize: int = 0
    """Shorter side of an image before the centre crop; 0: the largest centre crop."""
    protocol: str = ""
    """How the head was trained, in one line."""


class Prediction(NamedTuple):
    """The most probable class of an image."""

    name: str
    score: float
    """Share of this class in the softmax of all class scores, from 0 to 1."""


class ImageClassifier:
    """Names the class of images. `mage probe --out` keeps one; `mage.load_classifier` reads it."""

    def __init__(self, model: Mage, head: LinearHead | None, config: ClassifierConfig) -> None:
        """head: scores of the model's features; None: the model is itself a classifier.

        Raises ValueError if head and names have different numbers of classes.
        """
        count = len(config.class_names)
        network = model.require_transformer()
        classes = network.num_classes if isinstance(network, Classifier) and head is None else count
        classes = len(head.bias) if head is not None else classes
        if count != classes:
            raise ValueError(f"the classifier scores {classes} classes, but {count} names of classes are given")
        self.model, self.head, self.config = model, head, config

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the scores."""
        return self.config.class_names

    @property
    def transform(self) -> TransformConfig:
        """Scaling and cropping of an image to the model's size."""
        return TransformConfig(size=self.model.image_size, resize=self.config.resize)

    @property
    def fingerprint(self) -> str:
        """A short string that changes with any weight of the head or of the model."""
        own = {} if self.head is None else self.head.state_dict()
        return weights_fingerprint(own, f"{self.config} {model_fingerprint(self.model)}")

    def scores(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Shares of the classes, which sum to 1, of images that are cut to the model's size; on the CPU.

        They are probabilities for logistic regression (lbfgs) and fine-tuned models; for other heads the largest is
        the answer, and its size a rough order of certainty.
        """
        if self.head is None:
            return self.model.classify(pixels).float().cpu().softmax(dim=1)
        with torch.inference_mode():
            scores: Tensor = self.head(self.model.features(pixels, self.config.pool).float().cpu())
        return scores.softmax(dim=1)

    def predict(self, pictures: Sequence[object], *, batch_size: int = 64) -> list[Prediction]:
        """The class of each image: files, PIL images, arrays or tensors of any size, cut as in the training.

        Raises ValueError as `Mage.features`; for whole folders there is `mage.runs.predict`.
        """
        cut, predictions = build_transform(self.transform), []
        for start in range(0, len(pictures), batch_size):
            rows = []
            for picture in pictures[start : start + batch_size]:
                whole = as_images(picture, size=None, channels=self.model.channels, resize=False).pixels
                if len(whole) != 1:
                    raise ValueError(f"give a list with one image in each place, not {len(whole)} images in one place")
                rows.append(cut(images.to_uint8(whole[0]).cpu(), torch.Generator()))
            best = self.scores(images.to_float(torch.stack(rows))).max(dim=1)
            predictions += [
                Prediction(self.class_names[number], score)
                for number, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        return predictions

    def write(self, folder: Path) -> None:
        """Write the classifier's files into an existing folder. Raises ValueError for a fine-tuned model."""
        if self.head is None:
            raise ValueError("a fine-tuned model is its own classifier: keep it with Mage.save")
        self.model.save(folder / "model")
        save_file({name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}, folder / HEAD)
        atomic.write_json(folder / CONFIG, to_dict(self.config))


def model_fingerprint(model: Mage) -> str:
    """A short string that changes with any weight of a model's networks."""
    tokenizer = "" if model.tokenizer is None else model.tokenizer.fingerprint()
    return weights_fingerprint(model.require_transformer().state_dict(), tokenizer)


def check_new_folder(folder: Path) -> None:
    """Raise ValueError, before any work, if `folder` holds anything but a classifier, which may be replaced."""
    if not atomic.is_empty(folder) and not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} exists and holds no classifier; choose another name, nothing was overwritten")
    atomic.check_replaceable(folder)


def load_classifier(
    path: str | Path, *, precision: str = "auto", device: str | torch.device = "auto"
) -> ImageClassifier:
    """Read a classifier that `mage probe --out` kept, or a fine-tuned model. Raises ValueError for anything else."""
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        return _fine_tuned(folder, precision, device)
    if regular_size(folder / CONFIG) > MOST_BYTES:
        raise ValueError(f"{folder / CONFIG} is larger than {MOST_BYTES:,} bytes: it is no classifier's")
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG} is not readable as JSON ({type(error).__name__})") from None
    config = from_dict(ClassifierConfig, values, where=CONFIG)
    if config.format != FORMAT:
        raise ValueError(f"{folder} has format {config.format}; this version of mage reads {FORMAT}")
    head = _head(folder / HEAD, len(config.class_names))
    model = load(folder / "model", precision=precision, device=device)
    width = model.features(torch.zeros(1, model.channels, *model.image_size), config.pool).shape[1]
    if len(head.mean) != width:
        raise ValueError(
            f"{folder / HEAD} scores {len(head.mean)} numbers per image, but pool {config.pool!r} of its model gives "
            f"{width}: its files belong to different classifiers"
        )
    return ImageClassifier(model, head, config)


def _head(path: Path, classes: int) -> LinearHead:
    tensors = read_tensors(path)
    width = tensors["mean"].numel() if "mean" in tensors else 0
    expected = {"mean": (width,), "deviation": (width,), "weight": (classes, width), "bias": (classes,)}
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
        raise ValueError(f"{path} does not fit its {CONFIG}: it needs {', '.join(expected)} for {classes} classes")
    return LinearHead(**tensors)


def _fine_tuned(folder: Path, precision: str, device: str | torch.device) -> ImageClassifier:
    model = load(folder, precision=precision, device=device)
    network = model.transformer
    if not isinstance(network, Classifier):
        raise ValueError(
            f"{folder} is no classifier: `mage probe --model {folder} --data DATA --out CLASSIFIER` keeps a classifier "
            "on its features, `mage finetune` trains one"
        )
    names = model.class_names or tuple(str(number) for number in range(network.num_classes))
    resize = fine_tuned_cut(model).resize
    return ImageClassifier(model, None, ClassifierConfig(FORMAT, names, resize=resize, protocol="fine-tuned"))


def fine_tuned_cut(model: Mage) -> TransformConfig:
    """What a fine-tuned model sees of an image: as its fine-tuning tested it."""
    data = model.recipe.get("data", {})
    share = data.get("test_resize", 292 / 256) if isinstance(data, dict) else 292 / 256
    return evaluation_transform(model.image_size, float(share))
