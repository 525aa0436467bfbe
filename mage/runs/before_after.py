"""A model before and after its adaptation to a folder: the same measures and pictures of the same test images.

Letters: n images, c channels, H W pixels, gh gw pixels of a grid.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from mage import images
from mage.data.datasets import CorruptImage, ImageDataset, evenly, load_dataset
from mage.data.transforms import TransformConfig
from mage.evaluation.features import NoClasses
from mage.evaluation.knn import NearestNeighbours
from mage.evaluation.masked_loss import MaskedLoss, MaskedTokens
from mage.evaluation.metric import Measured, measure
from mage.evaluation.representation import Representation
from mage.evaluation.tokenizer import evaluate_tokenizer
from mage.evaluation.tokenizer_metrics import TokenizerProtocol
from mage.pipeline import Mage
from mage.pipeline.modes import evaluating
from mage.runs.inputs import load_images
from mage.runs.tokenizer_check import perceptual_network
from mage.sampling.classes import NO_CLASS

MOST_TEST, MOST_TRAIN = 1000, 5000
"""Test images that are measured, and training images among which neighbours are sought."""
KEPT = ("psnr_db", "ssim", "perceptual")
"""Metrics of the tokenizer that are reported; the use of the codebook does not change with the decoder."""
SAMPLES, SHOWN = 64, 10
"""Generated images, and reconstructed ones, in the pictures."""
RISE = 1.02
"""Held-out loss over its lowest value from which on a network counts as learning its images by heart."""
LOOKED_AT = 16
"""Images whose colours are looked at."""
HUE, COLOURED_SHARE = 32, 0.02
"""Levels between a pixel's largest and smallest channel from which on it has a colour; and the share of such pixels
from which on an image has: noise of a camera and JPEG colour grey images a little."""


@dataclass(frozen=True)
class TestedImages:
    """The images on which a model is measured; training images are for k-NN only."""

    train: ImageDataset
    test: ImageDataset

    def measure(self, model: Mage) -> Measured:
        """Reconstruction, masked loss and, of class folders, k-NN accuracy with its interval."""
        test, train = evenly(self.test, MOST_TEST), evenly(self.train, MOST_TRAIN)
        protocol = TokenizerProtocol(
            perceptual=perceptual_network(model.channels), perceptual_name="EfficientNet-Lite0, at 64 pixels"
        )
        quality = evaluate_tokenizer(model, test, protocol)
        measured = Measured(
            metrics={name: value for name, value in quality.metrics.items() if name in KEPT},
            protocols={name: text for name, text in quality.protocols.items() if name in KEPT},
        )
        tokens = model.encode(images.to_float(_pixels(test, model)))
        with evaluating(model.transformer), model.autocast():
            measured.include(measure({"masked_loss": MaskedLoss()}, MaskedTokens(model.require_generator(), tokens)))
        try:
            measured.include(measure({"knn": NearestNeighbours()}, Representation(model, train, test)))
        except NoClasses as reason:
            measured.left_out.append(f"k-NN: {reason}")
        return measured

    def samples(self, model: Mage) -> Float[Tensor, "c gh gw"]:
        """A grid of samples with seed 0, without classes."""
        classes = NO_CLASS if model.require_generator().config.num_classes else None
        return images.make_grid(model.generate(SAMPLES, seed=0, classes=classes).cpu().float())

    def shown(self, model: Mage) -> Float[Tensor, "n c H W"]:
        """A few test images, of the model's size."""
        return images.to_float(_pixels(evenly(self.test, SHOWN), model))

    def reconstructions(self, model: Mage) -> Float[Tensor, "n c H W"]:
        """The same after the model's tokenizer."""
        return model.decode_tokens(model.encode(self.shown(model))).cpu().float()


def pretraining_warnings(
    before: Mapping[str, float], after: Mapping[str, float], log: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Reasons to doubt the new model. log: of pre-training, with the loss on held-out images."""
    sentences = []
    old, new = before["masked_loss"], after["masked_loss"]
    if new >= old:
        sentences.append(
            f"the masked loss on test images did not fall ({old:.3f} before, {new:.3f} after): more images or minutes "
            "are needed, or the given model is better as it is"
        )
    losses = [(line["valid/loss"], line["step"]) for line in log if "valid/loss" in line]
    if losses and losses[-1][0] > RISE * min(losses)[0]:
        lowest, step = min(losses)
        sentences.append(
            f"the loss on held-out images rose from {lowest:.3f} at step {step:,} to {losses[-1][0]:.3f}: the network "
            "learns these images by heart; give fewer minutes, more images, or "
            "--set data.transform.augmentation=crop_flip"
        )
    return sentences


def colour_warnings(channels: int, data: str, data_root: str | None) -> list[str]:
    """That the model is grey and the images, of which a few are looked at, are not."""
    if channels != 1:
        return []
    coloured = 0
    shown = evenly(load_dataset(data, split="train", data_root=data_root, channels=3), LOOKED_AT)
    for index in range(len(shown)):
        with contextlib.suppress(CorruptImage):
            image = shown.load(index).int()
            spread = image.amax(0) - image.amin(0)
            coloured += int((spread > HUE).float().mean() > COLOURED_SHARE)
    if 2 * coloured <= len(shown):
        return []
    return ["these images have colours and the model is grey: it sees none, and draws none; start from another model"]


def _pixels(dataset: ImageDataset, model: Mage) -> UInt8[Tensor, "n c H W"]:
    return load_images(dataset, list(range(len(dataset))), TransformConfig(size=model.image_size))
