"""Codebooks without learned words, which cannot collapse: a fixed grid of numbers (FSQ) or signs (LFQ).

Letters: n images, d code width, h w grid, m vectors, k codes.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mage.tokenizers.quantizers.base import (
    Quantized,
    Quantizer,
    QuantizerConfig,
    entropy_loss,
    rows,
    straight_through,
)

BITS_AT_ONCE = 12
"""LFQ: the entropy of the mean word is exact up to this many bits; beyond, it is a sum over groups of this size."""


class FSQ(Quantizer):
    """Finite scalar quantization: each number is bounded and rounded to one of its levels (Mentzer et al. 2023)."""

    fingerprint_ignores = ("codebook", "place_values")  # they follow from the levels
    codebook_levels: Tensor
    place_values: Tensor
    codebook: Tensor

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__(config)
        levels = config.levels
        if levels and min(levels) < 3:
            raise ValueError(
                f"fsq: every level must be 3 or more, not {min(levels)} as in {levels}: with two levels the second is "
                "hardly ever reached, and half of the codes stay unused; for one bit per number take kind lfq"
            )
        if not levels or math.prod(levels) != config.num_codes or len(levels) != width:
            raise ValueError(
                f"fsq: {len(levels)} levels {levels} make {math.prod(levels)} codes; num_codes is {config.num_codes} "
                f"and code_width {width}. For about 1,000 codes take levels (8, 5, 5, 5), num_codes 1000, code_width 4"
            )
        self.register_buffer("codebook_levels", torch.tensor(levels))
        steps = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("place_values", torch.tensor(steps), persistent=False)
        ids = torch.arange(config.num_codes)
        digits = torch.stack([ids // step % level for step, level in zip(steps, levels, strict=True)], dim=1)
        self.register_buffer("codebook", self._to_words(digits), persistent=False)

    def words(self) -> Float[Tensor, "k d"]:
        """All points of the grid, in [-1, 1]."""
        return self.codebook

    def affinity(self, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        """Negative squared distances of the bounded vectors from the points of the grid, in steps of the grid."""
        points = self.codebook * (self.codebook_levels // 2)
        return -(self._bounded(vectors)[:, None] - points).square().sum(dim=2)

    def nearest(self, vectors: Float[Tensor, "m d"]) -> Int[Tensor, " m"]:
        """Id of each vector's cell: the first number is the lowest digit."""
        digits = self._bounded(vectors).round().long() + self.codebook_levels // 2
        return (digits * self.place_values).sum(dim=1)

    def forward(self, latent: Float[Tensor, "n d h w"]) -> Quantized:
        """Bound and round; there is no loss. Gradients pass through the bounding, and straight through the rounding."""
        latent = latent.float()
        bounded = self._bounded(rows(latent)) / (self.codebook_levels // 2)
        grid = bounded.unflatten(0, (len(latent), *latent.shape[2:])).permute(0, 3, 1, 2)
        ids = self.ids(latent)
        return Quantized(straight_through(grid, self.lookup(ids)), ids, latent.new_zeros(()))

    def _bounded(self, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Squash to a range that rounds to the levels; 0 stays 0, also for an even, asymmetric number of levels."""
        half = (self.codebook_levels - 1) * (1 + 1e-3) / 2
        half = half.minimum((self.codebook_levels - 1) / 2 + 0.25)  # of many levels, too, the last one is rounded to
        offset = torch.where(self.codebook_levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(vectors + torch.atanh(offset / half)) * half - offset

    def _to_words(self, digits: Int[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        half = self.codebook_levels // 2
        return (digits - half) / half


class LFQ(Quantizer):
    """Lookup-free quantization: the signs of the numbers are the bits of the id (Yu et al. 2024, section 3.1)."""

    fingerprint_ignores = ("codebook", "place_values")  # all corners of the cube, powers of two
    codebook: Tensor
    place_values: Tensor

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__(config)
        if config.num_codes != 2**width:
            raise ValueError(f"lfq with code_width {width} has {2**width} codes, not {config.num_codes}")
        bits = torch.arange(config.num_codes)[:, None] >> torch.arange(width) & 1
        self.register_buffer("codebook", bits * 2.0 - 1, persistent=False)
        self.register_buffer("place_values", 2 ** torch.arange(width), persistent=False)

    def words(self) -> Float[Tensor, "k d"]:
        """All corners of the cube; the first number is the lowest bit."""
        return self.codebook

    def affinity(self, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        """Negative squared distances from the corners, up to a constant per vector."""
        return 2 * vectors @ self.codebook.T

    def nearest(self, vectors: Float[Tensor, "m d"]) -> Int[Tensor, " m"]:
        """Positive numbers are set bits."""
        return ((vectors > 0) * self.place_values).sum(dim=1)

    def forward(self, latent: Float[Tensor, "n d h w"]) -> Quantized:
        """Take signs; loss = commitment x |latent - word|^2 + entropy."""
        latent = latent.float()
        ids = self.ids(latent)
        words = self.lookup(ids)
        loss = self.config.commitment * functional.mse_loss(latent, words)
        if self.config.entropy:
            loss = loss + self.config.entropy * self._entropy(rows(latent))
        return Quantized(straight_through(latent, words), ids, loss)

    def _entropy(self, vectors: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
        """Groups of bits are treated as independent; the distance from a corner is 2 x product, up to a constant."""
        total = vectors.new_zeros(())
        for part in vectors.split(BITS_AT_ONCE, dim=1):
            corners = self.codebook[: 2 ** part.shape[1], : part.shape[1]]
            total = total + entropy_loss(2 * part @ corners.T, self.config.entropy_temperature)
        return total
