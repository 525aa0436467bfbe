"""Fine-tuning: encoder and head learn the labels together (paper, section 4.3).

Images are mixed before they are tokenized, as in the paper.

Letters: n images, c channels, H W pixels, k classes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from mage import images, rng
from mage.data.batches import Batches
from mage.device import autocast
from mage.models import Classifier, MAGEClassifier, PatchClassifier
from mage.share import Turn
from mage.store import folder as store
from mage.store.parts import ModelParts
from mage.tokenizers import Tokenizer
from mage.training.optim import OptimConfig
from mage.training.task import Loss, Observation, Reading, Task


@dataclass(frozen=True)
class MixConfig:
    """Mixup, cutmix and label smoothing; the defaults are the paper's."""

    mixup: float = 0.8
    """Beta parameter of mixup, a weighted mean of two images; 0: none."""
    cutmix: float = 1.0
    """Beta parameter of cutmix, a rectangle of one image in another; 0: none. With both, each has half the batches."""
    label_smoothing: float = 0.1
    """Label smoothing of the loss."""

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) < 0 or not 0 <= self.label_smoothing < 1:
            raise ValueError(
                "mixup and cutmix must be 0 or more and label_smoothing in [0, 1), not "
                f"{self.mixup}, {self.cutmix} and {self.label_smoothing}"
            )


class Mixed(NamedTuple):
    """Images with the share of each class in them."""

    images: Float[Tensor, "n c H W"]
    targets: Float[Tensor, "n k"]


def mix(
    images: Float[Tensor, "n c H W"], labels: Int[Tensor, " n"], num_classes: int, config: MixConfig, seed: int
) -> Mixed:
    """Mix each image with its neighbour in the batch, by mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019).

    Neighbours are rows 2k and 2k + 1; in a batch of odd length the last row is not mixed. So the mixing does not depend
    on the number of processes, as long as the part of each has an even number.
    """
    targets = functional.one_hot(labels, num_classes).float()
    generator = np.random.default_rng(seed)
    cut = config.cutmix > 0 and (config.mixup == 0 or generator.random() < 0.5)
    alpha = config.cutmix if cut else config.mixup
    if alpha == 0:
        return Mixed(images, targets)
    own = float(generator.beta(alpha, alpha))
    partner = torch.arange(len(images), device=images.device)
    partner = torch.where(partner % 2 == 0, (partner + 1).clamp(max=len(images) - 1), partner - 1)
    if cut:
        height, width = images.shape[-2:]
        h, w = round(height * (1 - own) ** 0.5), round(width * (1 - own) ** 0.5)
        y, x = generator.integers(height), generator.integers(width)
        top, bottom = max(0, y - h // 2), min(height, y - h // 2 + h)
        left, right = max(0, x - w // 2), min(width, x - w // 2 + w)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images[partner, :, top:bottom, left:right]
        own = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        mixed = torch.lerp(images[partner], images, own)
    return Mixed(mixed, torch.lerp(targets[partner], targets, own))


class Finetuning(Task):
    """The task: one classifier, one optimizer; the tokenizer, if there is one, is frozen."""

    def __init__(
        self,
        classifier: Classifier,
        tokenizer: Tokenizer | None,
        source: Batches,
        *,
        num_images: int,
        optim: OptimConfig,
        mixing: MixConfig,
        recipe: dict[str, Any],
        seed: int,
        validation: tuple[UInt8[Tensor, "n C H W"], Int[Tensor, " n"]],
        notes: dict[str, Any] | None = None,
        precision: str = "float32",
    ) -> None:
        """source: gives "images" (uint8) and "labels". precision: in which images are tokenized."""
        super().__init__("classifier", classifier, source, optim, num_images=num_images)
        self._classes, self._tokenizer, self._mixing = classifier.num_classes, tokenizer, mixing
        self._recipe, self._seed, self._validation = recipe, seed, validation
        self._notes, self._precision = notes or {}, precision
        if mixing.mixup or mixing.cutmix:
            self.of_parts = "images are mixed with others of their part: let each have an even number"

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        """Cross-entropy with the shares of the classes in mixed images."""
        seed = rng.stream_seed(self._seed, "mix", turn.step)
        mixed = mix(images.to_float(batch["images"]), batch["labels"], self._classes, self._mixing, seed)
        scores = modules["classifier"](self._inputs(mixed.images))
        loss = functional.cross_entropy(scores, mixed.targets, label_smoothing=self._mixing.label_smoothing)
        right = (scores.argmax(dim=1) == mixed.targets.argmax(dim=1)).float().mean()
        yield Loss("classifier", loss, {"train/accuracy": Reading(right)})

    @torch.no_grad()
    def _inputs(self, pixels: Float[Tensor, "n c H W"]) -> Tensor:
        if self._tokenizer is None:
            return pixels
        with autocast(self._precision, pixels.device):
            return self._tokenizer.encode(pixels)

    def observe(self, modules: Mapping[str, nn.Module]) -> Observation:
        """Accuracy and loss on validation images, unmixed."""
        pixels, labels = self._validation
        device = next(modules["classifier"].parameters()).device
        parts = [modules["classifier"](self._inputs(images.to_float(part.to(device)))) for part in pixels.split(256)]
        scores = torch.cat(parts).float().cpu()
        accuracy = float((scores.argmax(dim=1) == labels).double().mean())
        return Observation({"valid/accuracy": accuracy, "valid/loss": float(functional.cross_entropy(scores, labels))})

    def export(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        """Write tokenizer and classifier as a model folder."""
        classifier = modules["classifier"]
        assert isinstance(classifier, MAGEClassifier | PatchClassifier)
        store.write(ModelParts(self._tokenizer, classifier, self._recipe, self._notes), folder)
