"""Fidelity of reconstructions: PSNR, SSIM, absolute and perceptual distance.

Letters: n images, c channels, H W pixels.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mage import images
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.evaluation.tokenizer_metrics import (
    TOKENIZER_METRICS,
    Reconstructions,
    Tokenized,
    TokenizerMetric,
    TokenizerProtocol,
)

WINDOW, SIGMA = 11, 1.5
"""SSIM's Gaussian window, in pixels."""


def ssim(first: Float[Tensor, "n c H W"], second: Float[Tensor, "n c H W"]) -> Float[Tensor, " n"]:
    """Structural similarity of each pair of images in [0, 1] (Wang et al. 2004), mean over windows and channels.

    Gaussian windows of 11 pixels inside the image; the largest odd size that fits into smaller images.
    """
    x, y = first.float(), second.float()
    side = min(WINDOW, *((length - 1) // 2 * 2 + 1 for length in x.shape[-2:]))
    line = torch.exp(-0.5 * ((torch.arange(side, device=x.device) - side // 2) / SIGMA).square())
    line = line / line.sum()
    channels = x.shape[1]

    def blurred(image: Tensor) -> Tensor:
        along = functional.conv2d(image, line.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
        return functional.conv2d(along, line.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)

    mean_x, mean_y = blurred(x), blurred(y)
    variance = blurred(x * x) + blurred(y * y) - mean_x.square() - mean_y.square()
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance + c2)
    similarity: Tensor = (brightness * structure).flatten(1).mean(dim=1)
    return similarity


@TOKENIZER_METRICS.register("pixels")
class PixelFidelity(TokenizerMetric):
    """PSNR, SSIM and mean absolute error."""

    metrics: ClassVar = {
        "psnr_db": Description(
            "Tokenizer PSNR",
            "How close an image comes back after being turned into tokens and decoded; 6 dB more is half the error.",
            "decibel",
            "higher",
        ),
        "ssim": Description(
            "SSIM",
            "Structural similarity of images and reconstructions (Wang et al. 2004); 1 is equality.",
            better="higher",
        ),
        "absolute_error": Description(
            "Mean absolute error", "Of a pixel's value, from 0 to 1, after the tokenizer.", better="lower"
        ),
    }

    def __init__(self, protocol: TokenizerProtocol) -> None:
        self._parts: dict[str, list[Tensor]] = {name: [] for name in self.metrics}

    def update(self, batch: Reconstructions) -> None:
        """Add the next images."""
        self._parts["psnr_db"].append(images.psnr(batch.reconstructions, batch.originals))
        self._parts["ssim"].append(ssim(batch.reconstructions, batch.originals))
        error = (batch.reconstructions - batch.originals).abs().flatten(1).mean(dim=1)
        self._parts["absolute_error"].append(error)

    def measure(self, tokenized: Tokenized) -> Iterator[Metric]:
        """Means over the images."""
        for name, parts in self._parts.items():
            yield self.metric(name, float(torch.cat(parts).mean()), f"mean over {len(tokenized.ids):,} images")


@TOKENIZER_METRICS.register("perceptual")
class Perceptual(TokenizerMetric):
    """Perceptual distance, by the network of the protocol."""

    metrics: ClassVar = {
        "perceptual": Description(
            "Perceptual distance", "Between images and reconstructions, as a network sees them.", better="lower"
        )
    }

    def __init__(self, protocol: TokenizerProtocol) -> None:
        self._network, self._name = protocol.perceptual, protocol.perceptual_name
        self._parts: list[Tensor] = []

    def update(self, batch: Reconstructions) -> None:
        """Add the next images."""
        if self._network is not None:
            with torch.inference_mode():
                distances = self._network(batch.reconstructions, batch.originals)
            self._parts.append(distances.expand(len(batch.originals)))

    def measure(self, tokenized: Tokenized) -> Iterator[Metric]:
        """The mean over the images."""
        if self._network is None:
            raise NotMeasured
        yield self.metric("perceptual", float(torch.cat(self._parts).mean()), self._name)
