"""What a metric of tokenizers is given, and the registry of these metrics.

A new metric is a subclass of TokenizerMetric registered in TOKENIZER_METRICS; `mage evaluate tokenizer` measures it
with the others, and reports describe it. Images pass by once, in batches; the tokens of all are kept.

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
    """What the metrics use beyond images and tokens."""

    extractors: tuple[Extractor, ...] = ()
    """For the Frechet distance of the reconstructions."""
    reference_name: str = ""
    """Of the images, in the names of those distances, such as "test"."""
    reference: dict[str, FeatureStatistics] = field(default_factory=dict)
    """Statistics of the originals by extractor; missing ones are added, so that they are computed only once where
    several tokenizers are measured on one data set."""
    perceptual: nn.Module | None = None
    """(images, targets) -> distance."""
    perceptual_name: str = ""
    train: ImageDataset | None = None
    """Labelled images, to train a classifier of token histograms on."""
    batch_size: int = 128
    on_images: Callable[[int], None] | None = None
    """Called with the number of images after every batch."""


class Reconstructions(NamedTuple):
    """A batch, in [0, 1], on the CPU."""

    originals: Float[Tensor, "n c H W"]
    reconstructions: Float[Tensor, "n c H W"]


@dataclass(frozen=True)
class Tokenized:
    """All images of a data set as tokens."""

    ids: Int[Tensor, "n h w"]
    labels: Int[Tensor, " n"] | None
    num_codes: int
    psnr_db: float
    """Mean over the images."""
    image_size: tuple[int, int] = (0, 0)
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What the tokenizer's training left of its own held-out images: images, psnr_db, code_counts."""
    encode: Callable[[Tensor], Tensor] = field(default=lambda pixels: pixels, repr=False)
    """More images (n, c, H, W) -> tokens (n, h, w)."""


class TokenizerMetric(Evaluator[Tokenized]):
    """One metric, made for one pass over a data set."""

    def __init__(self, protocol: TokenizerProtocol) -> None:
        raise NotImplementedError

    def update(self, batch: Reconstructions) -> None:
        """Look at the next images; nothing to do for what tokens alone tell."""


TOKENIZER_METRICS: Registry[type[TokenizerMetric]] = Registry(kind="metric", group="mage.tokenizer_metrics")
