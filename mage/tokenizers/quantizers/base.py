"""The interface of a quantizer: each position's vector is replaced by one word of a codebook, and the word has an id.

Letters: n images, d code width, h w grid, m vectors, k codes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage import distributed
from mage.nn.precision import in_full
from mage.registry import Registry

QuantizerKind = Callable[["QuantizerConfig", int], "Quantizer"]
"""(configuration, width of the vectors) -> quantizer; usually a class."""
QUANTIZERS: Registry[QuantizerKind] = Registry(kind="quantizer", group="mage.quantizers")
TOLD_BY_TENSORS = ("vq", "ema", "normalized", "simvq", "fsq", "lfq")
"""Kinds whose name is not part of a tokenizer's fingerprint."""


@dataclass(frozen=True)
class QuantizerConfig:
    """The codebook and its training."""

    kind: str = "vq"
    """vq: the paper's, learned by gradient. ema: words are running means. normalized: running means on the unit sphere.
    simvq: words are one learned map of fixed random vectors. fsq: a fixed grid of numbers. lfq: signs, one bit each."""
    num_codes: int = 1024
    """Number of words in the codebook."""
    commitment: float = 0.25
    """Weight of the loss that pulls the encoder's vectors to their words (none for fsq)."""
    keep_alive: bool = False
    """vq, simvq: k-means initialisation and revival of unused words, which ema and normalized always have."""
    decay: float = 0.99
    """Decay of the running means of the words and of their frequencies."""
    warmup_steps: int = 60
    """First steps without quantization, after which k-means initialises the words; for codebooks kept alive."""
    revive_below: float = 0.05
    """A word used less often than this share of the average is moved to a vector of the batch, if kept alive."""
    entropy: float = 0.0
    """Weight of the entropy loss: confident assignments, all words equally frequent. lfq needs about 0.1;
    fsq has no such loss, and does not look at it."""
    entropy_temperature: float = 0.01
    """Temperature of the softmax over distances in the entropy loss."""
    levels: tuple[int, ...] = ()
    """fsq: values of each number of a code; their product is num_codes, their count is code_width. Other kinds do not
    look at it."""

    def __post_init__(self) -> None:
        QUANTIZERS.get(self.kind)  # raises ValueError for an unknown kind
        if self.num_codes < 2:
            raise ValueError(f"a codebook needs at least 2 codes, not {self.num_codes}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), not {self.decay}")
        if self.entropy and self.entropy_temperature <= 0:
            raise ValueError(f"entropy_temperature must be positive, not {self.entropy_temperature}")


class Quantized(NamedTuple):
    """Result of quantizing a grid of vectors."""

    vectors: Float[Tensor, "n d h w"]
    """The words; gradients pass straight through to the encoder."""
    ids: Int[Tensor, "n h w"]
    loss: Float[Tensor, ""]
    """Commitment, codebook and entropy loss."""


class Quantizer(nn.Module, ABC):
    """A codebook: `ids` finds words, `lookup` returns them, `forward` does both with gradients and losses.

    A new kind is a subclass registered in QUANTIZERS.
    """

    fingerprint_ignores: tuple[str, ...] = ()
    """Names of tensors or submodules that the tokenizer's fingerprint leaves out: they do not change any id, or follow
    from the configuration."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def words(self) -> Float[Tensor, "k d"]:
        """All words."""

    @abstractmethod
    def affinity(self, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        """Similarity of each vector to each word; larger is nearer, with gradients."""

    def nearest(self, vectors: Float[Tensor, "m d"]) -> Int[Tensor, " m"]:
        """Id of each vector's word, the one of largest affinity; in float32."""
        return self.affinity(vectors).argmax(dim=1)

    def deciding(self) -> dict[str, Tensor]:
        """Every tensor that ids depend on, including those that are not saved."""
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        ignored = self.fingerprint_ignores
        return {n: t for n, t in tensors.items() if n not in ignored and n.split(".")[0] not in ignored}

    def rule(self) -> str:
        """How words are chosen, where `deciding` does not say it; part of the tokenizer's fingerprint.

        Empty for the kinds of earlier versions, whose caches stay valid: their tensors tell them apart, but for vq and
        ema, which choose alike, and normalized, which does so too as long as its words have length 1.
        """
        return "" if self.config.kind in TOLD_BY_TENSORS else self.config.kind

    @abstractmethod
    def forward(self, latent: Float[Tensor, "n d h w"]) -> Quantized:
        """Quantize, with gradients; in training mode the codebook may also move."""

    def ids(self, latent: Float[Tensor, "n d h w"]) -> Int[Tensor, "n h w"]:
        """Ids of a grid of vectors; always computed in float32 at least."""
        count, _, height, width = latent.shape
        with torch.autocast(latent.device.type, enabled=False):
            return self.nearest(in_full(rows(latent))).view(count, height, width)

    def lookup(self, ids: Int[Tensor, "n h w"]) -> Float[Tensor, "n d h w"]:
        """The words of a grid of ids."""
        words: Tensor = functional.embedding(ids, self.words())
        return words.permute(0, 3, 1, 2)


def rows(latent: Float[Tensor, "n d h w"]) -> Float[Tensor, "m d"]:
    """The vectors of a grid as rows."""
    return latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1])


def straight_through(latent: Float[Tensor, "n d h w"], words: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
    """The value of `words` with the gradient of `latent`."""
    return latent + (words - latent).detach()


def entropy_loss(affinity: Float[Tensor, "m k"], temperature: float) -> Float[Tensor, ""]:
    """Mean entropy of each vector's word minus entropy of the mean word (MaskGIT's tokenizer; Yu et al. 2024, eq. 4).

    affinity: larger is nearer, such as a negative squared distance.
    """
    log_share = (in_full(affinity) / temperature).log_softmax(dim=1)
    share = log_share.exp()
    each = -(share * log_share).sum(dim=1).mean()
    mean = distributed.mean_with_gradient(share.mean(dim=0))
    loss: Tensor = each + torch.special.xlogy(mean, mean.clamp(min=1e-12)).sum()
    return loss


class CodebookUsage(NamedTuple):
    """Usage of a codebook."""

    counts: Int[Tensor, " k"]
    used: float
    """Share of the words that occur at all."""
    perplexity: float
    """exp(entropy) of the words' frequencies; equals the number of words when all are equally frequent."""


def codebook_usage(ids: Int[Tensor, "..."], num_codes: int) -> CodebookUsage:
    """Usage of the codebook by any number of token grids."""
    counts = torch.bincount(ids.flatten().cpu(), minlength=num_codes)
    share = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(share, share).sum()
    return CodebookUsage(counts, float((counts > 0).double().mean()), float(entropy.exp()))
