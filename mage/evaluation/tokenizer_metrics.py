"""Input of the metrics of tokenizers, and the registry of these metrics.

A new metric is a subclass of TokenizerMetric registered in TOKENIZER_METRICS; `mage evaluate tokenizer` measures it
with the others, and reports describe it. Images are read once, in batches; the tokens of all images are kept.

Letters: n images, c channels, H W pixels, h w tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from mage.data.datasets import ImageDataset
from mage.evaluation.extractors import Extractor
from mage.evaluation.feature_statistics import FeatureStatistics
from mage.evaluation.metric import Evaluator
from mage.registry import Registry


@dataclass(frozen=True)
class TokenizerProtocol:
    """Networks, data and settings of the metrics."""

    extractors: tuple[Extractor, ...] = ()
    """Feature networks for the Frechet distance of reconstructions."""
    reference_name: str = ""
    """Name of the images in the names of these distances, such as "test"."""
    reference: dict[str, FeatureStatistics] = field(default_factory=dict)
    """Statistics of the originals by extractor. Missing ones are added, so that they are computed once for several
    tokenizers on one data set."""
    perceptual: nn.Module | None = None
    """Perceptual distance: (images, targets) -> distance, a mean or one per image."""
    perceptual_name: str = ""
    train: ImageDataset | None = None
    """Labelled images, on which a classifier of token histograms is trained."""
    batch_size: int = 128
    on_images: Callable[[int], None] | None = None
    """Called with the number of images after every batch."""


class Reconstructions(NamedTuple):
    """A batch of images and their reconstructions in [0, 1], on the CPU."""

    originals: Float[Tensor, "n c H W"]
    reconstructions: Float[Tensor, "n c H W"]


@dataclass(frozen=True)
class Tokenized:
    """All images of a data set as tokens."""

    ids: Int[Tensor, "n h w"]
    labels: Int[Tensor, " n"] | None
    num_codes: int
    psnr_db: float
    """Mean PSNR of the images in dB."""
    image_size: tuple[int, int] = (0, 0)
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Measured on the held-out images of the tokenizer's training: images (their number), psnr_db, code_counts."""
    encode: Callable[[Tensor], Tensor] = field(default=lambda pixels: pixels, repr=False)
    """Encoder for further images: (n, c, H, W) in [0, 1] -> tokens (n, h, w)."""


class TokenizerMetric(Evaluator[Tokenized]):
    """A metric; an instance serves one pass over a data set."""

    def __init__(self, protocol: TokenizerProtocol) -> None:
        self._protocol = protocol

    def update(self, batch: Reconstructions) -> None:
        """Add the next images; metrics of the tokens alone do nothing."""


TOKENIZER_METRICS: Registry[type[TokenizerMetric]] = Registry(kind="metric", group="mage.tokenizer_metrics")
