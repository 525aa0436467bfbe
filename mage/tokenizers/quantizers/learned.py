"""Codebooks of learned words: by gradient (vq, simvq) or as running means of their vectors (ema, normalized).

Letters: n images, d code width, h w grid, m vectors, k codes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage import distributed, rng
from mage.nn.precision import in_full
from mage.tokenizers.quantizers.base import (
    Quantized,
    Quantizer,
    QuantizerConfig,
    entropy_loss,
    rows,
    straight_through,
)
from mage.tokenizers.quantizers.life import CodebookLife, negative_distances


class VectorQuantizer(Quantizer):
    """The paper's: nearest word in L2, codebook learned by gradient (van den Oord et al. 2017, equation 3)."""

    fingerprint_ignores = ("life",)

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__(config)
        self.codebook = nn.Parameter(torch.empty(config.num_codes, width))
        nn.init.uniform_(self.codebook, -1 / config.num_codes, 1 / config.num_codes)
        self.life = CodebookLife(config) if config.keep_alive else None

    def words(self) -> Float[Tensor, "k d"]:
        """The codebook."""
        return self.codebook

    def affinity(self, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        """Negative squared distances, up to a constant per vector."""
        return negative_distances(vectors, in_full(self.words()))

    def forward(self, latent: Float[Tensor, "n d h w"]) -> Quantized:
        """Quantize; loss = |sg(latent) - word|^2 + commitment x |latent - sg(word)|^2 (+ entropy)."""
        latent = in_full(latent)
        if self.training and self.life is not None:
            step, first = self.life.begin()
            if step < 0:
                # Words are not used yet, but DDP waits for a gradient of every parameter.
                return Quantized(latent, self.ids(latent), 0 * in_full(self.words()).sum())
            # Words move before the graph is built: backward needs the values that forward used.
            if first and step == 0:
                everywhere = torch.ones_like(self.life.usage[:, None]).bool()
                self._move(everywhere, self.life.place(rows(latent.detach()), spherical=False))
            elif first:
                self._move(*self.life.revive(rows(latent.detach())))
        ids = self.ids(latent)
        words = in_full(self.lookup(ids))
        loss = functional.mse_loss(words, latent.detach())
        loss = loss + self.config.commitment * functional.mse_loss(latent, words.detach())
        if self.config.entropy:
            affinity = self.affinity(rows(latent))
            loss = loss + self.config.entropy * entropy_loss(affinity, self.config.entropy_temperature)
        if self.training and self.life is not None and (whole := self.life.whole(ids.flatten())) is not None:
            self.life.census(*whole)
        return Quantized(straight_through(latent, words), ids, loss)

    @torch.no_grad()
    def _move(self, which: Tensor, where: Float[Tensor, "k d"]) -> None:
        """Move the words marked in `which`."""
        self.codebook.copy_(torch.where(which, where.to(self.codebook.dtype), self.codebook))


class SimVQ(VectorQuantizer):
    """Words are a linear map of fixed random vectors: every step moves all of them (Zhu et al. 2024, SimVQ)."""

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__(config, width)
        del self.codebook
        fixed = torch.randn(config.num_codes, width, generator=rng.generator(0, "codebook")) * width**-0.5
        self.register_buffer("codebook", fixed)
        self.codebook_map = nn.Linear(width, width, bias=False)

    def words(self) -> Float[Tensor, "k d"]:
        """The mapped vectors."""
        mapped: Tensor = self.codebook_map(self.codebook)
        return mapped

    @torch.no_grad()
    def _move(self, which: Tensor, where: Float[Tensor, "k d"]) -> None:
        """Move the words marked in `which`, by fixed vectors that the map takes to the new words."""
        origin = torch.linalg.lstsq(in_full(self.codebook_map.weight), in_full(where).T).solution.T
        self.codebook.copy_(torch.where(which, origin.to(self.codebook.dtype), self.codebook))


class RunningMeanQuantizer(Quantizer):
    """Each word is the running mean of the vectors that chose it, kept alive by k-means and revival.

    `ema` compares by distance (van den Oord et al. 2017, appendix A). `normalized` puts vectors and words on the unit
    sphere, best in few dimensions (Yu et al. 2022, section 3.2).
    """

    fingerprint_ignores = ("life", "sums")
    codebook: Tensor
    sums: Tensor

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__(config)
        self.spherical = config.kind == "normalized"
        start = functional.normalize(
            torch.randn(config.num_codes, width, generator=rng.generator(0, "codebook")), dim=1
        )
        self.register_buffer("codebook", start)
        self.register_buffer("sums", start.clone())
        self.life = CodebookLife(config)

    def words(self) -> Float[Tensor, "k d"]:
        """The codebook."""
        return self.codebook

    def affinity(self, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        """Negative squared distances, up to a constant per vector; cosines if normalized."""
        vectors = functional.normalize(vectors, dim=1) if self.spherical else vectors
        return self._affinity(vectors, in_full(self.codebook))

    def rule(self) -> str:
        """Empty where the largest cosine is also the smallest distance: of words on the unit sphere."""
        off_sphere = float((self.codebook.float().norm(dim=1) - 1).abs().max())
        return self.config.kind if self.spherical and off_sphere > 0.01 else super().rule()

    def forward(self, latent: Float[Tensor, "n d h w"]) -> Quantized:
        """Quantize; in training mode also move the codebook, once a step.

        loss = commitment x |latent - word|^2 (+ entropy)
        """
        latent = functional.normalize(in_full(latent), dim=1) if self.spherical else in_full(latent)
        if self.training:
            step, first = self.life.begin()
            if step < 0:
                return Quantized(latent, self.ids(latent), latent.new_zeros(()))
            if step == 0 and first:
                self.codebook.copy_(self.life.place(rows(latent.detach()), spherical=self.spherical))
                self.sums.copy_(self.codebook)
        ids = self.ids(latent)
        words = self.lookup(ids)
        loss = self.config.commitment * functional.mse_loss(latent, words)
        if self.config.entropy:
            # A copy: the codebook moves below, before backward.
            affinity = self._affinity(rows(latent), self.codebook.clone()) * (2 if self.spherical else 1)
            loss = loss + self.config.entropy * entropy_loss(affinity, self.config.entropy_temperature)
        vectors = straight_through(latent, words)
        if self.training and (whole := self.life.whole(rows(latent.detach()), ids.flatten())) is not None:
            self._follow(*whole)
        return Quantized(vectors, ids, loss)

    def _affinity(self, vectors: Float[Tensor, "m d"], words: Float[Tensor, "k d"]) -> Float[Tensor, "m k"]:
        return vectors @ words.T if self.spherical else negative_distances(vectors, words)

    @torch.no_grad()
    def _follow(self, vectors: Float[Tensor, "m d"], ids: Int[Tensor, " m"]) -> None:
        """One step of the running means; hardly used words move to vectors of this batch."""
        census = self.life.census(ids)
        sums = distributed.sum_over_processes(torch.zeros_like(self.codebook).index_add_(0, ids, vectors))
        self.sums.lerp_(sums * census.scale, 1 - self.config.decay)
        starving, candidates = self.life.revive(vectors)
        self.sums.copy_(torch.where(starving, candidates, self.sums))
        means = self.sums / self.life.usage[:, None].clamp(min=1e-6)
        self.codebook.copy_(functional.normalize(self.sums, dim=1) if self.spherical else means)
