"""Vector quantization: each position's vector is replaced by the nearest word of a codebook.

Two learners of the codebook. `vq` is the paper's: vectors and words as they are, L2 distance, the codebook moves by
gradient (van den Oord et al. 2017, equation 3). `normalized` keeps vectors and words on the unit sphere in few
dimensions, moves each word to the running mean of its vectors, starts with k-means after a phase without
quantization, and gives words that nobody uses a new place among the vectors: small tokenizers need that to use
their whole codebook.

Letters: n images, d code width, h w grid, m vectors, k codes.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage import distributed, rng


@dataclass(frozen=True)
class QuantizerConfig:
    """Codebook and how it learns."""

    kind: Literal["vq", "normalized"] = "vq"
    """vq: the paper's, by gradient; normalized: unit sphere, running means, revived when unused."""
    num_codes: int = 1024
    """Words in the codebook."""
    commitment: float = 0.25
    """Weight of the loss that pulls the encoder to its word."""
    decay: float = 0.99
    """normalized: decay of the running means."""
    warmup_steps: int = 60
    """normalized: first steps without quantization, after which k-means places the words."""
    revive_below: float = 0.05
    """normalized: a word used less than this share of the average is moved to a vector of the batch."""

    def __post_init__(self) -> None:
        if self.num_codes < 2:
            raise ValueError(f"a codebook needs at least 2 codes, not {self.num_codes}")


class Quantized(NamedTuple):
    """Result of quantizing a grid of vectors."""

    vectors: Float[Tensor, "n d h w"]
    """The words; gradients pass straight through to the encoder."""
    ids: Int[Tensor, "n h w"]
    loss: Float[Tensor, ""]
    """Commitment (and codebook) loss."""


class VectorQuantizer(nn.Module):
    """The paper's quantizer: nearest word in L2, codebook learned by gradient."""

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.codebook = nn.Parameter(torch.empty(config.num_codes, width))
        nn.init.uniform_(self.codebook, -1 / config.num_codes, 1 / config.num_codes)

    def nearest(self, vectors: Float[Tensor, "m d"]) -> Int[Tensor, " m"]:
        """Id of the word nearest to each vector."""
        words = self.codebook.float()
        return torch.addmm(words.square().sum(dim=1), vectors.float(), words.T, alpha=-2).argmin(dim=1)

    def ids(self, latent: Float[Tensor, "n d h w"]) -> Int[Tensor, "n h w"]:
        """Ids of a grid of vectors; always computed in float32."""
        count, _, height, width = latent.shape
        with torch.autocast(latent.device.type, enabled=False):
            return self.nearest(_rows(latent).float()).view(count, height, width)

    def lookup(self, ids: Int[Tensor, "n h w"]) -> Float[Tensor, "n d h w"]:
        """The words of a grid of ids."""
        return functional.embedding(ids, self.codebook).permute(0, 3, 1, 2)

    def forward(self, latent: Float[Tensor, "n d h w"]) -> Quantized:
        """Quantize; loss = |sg(latent) - word|^2 + commitment x |latent - sg(word)|^2."""
        latent = latent.float()
        ids = self.ids(latent)
        words = self.lookup(ids)
        pull_codebook = functional.mse_loss(words, latent.detach())
        pull_encoder = functional.mse_loss(latent, words.detach())
        vectors = latent + (words - latent).detach()
        return Quantized(vectors, ids, pull_codebook + self.config.commitment * pull_encoder)


class NormalizedQuantizer(nn.Module):
    """Words on the unit sphere, kept alive by running means, k-means and revival."""

    codebook: Tensor
    sums: Tensor
    usage: Tensor
    steps: Tensor

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__()
        self.config = config
        start = torch.randn(config.num_codes, width, generator=rng.generator(0, "codebook"))
        self.register_buffer("codebook", functional.normalize(start, dim=1))
        self.register_buffer("sums", self.codebook.clone())
        self.register_buffer("usage", torch.ones(config.num_codes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._step = 0  # the same number where it can be read without waiting for the device
        self.register_load_state_dict_post_hook(_read_step)  # type: ignore[no-untyped-call]

    def ids(self, latent: Float[Tensor, "n d h w"]) -> Int[Tensor, "n h w"]:
        """Ids of a grid of vectors; always computed in float32."""
        count, _, height, width = latent.shape
        with torch.autocast(latent.device.type, enabled=False):
            vectors = functional.normalize(_rows(latent).float(), dim=1)
            return (vectors @ self.codebook.T).argmax(dim=1).view(count, height, width)

    def lookup(self, ids: Int[Tensor, "n h w"]) -> Float[Tensor, "n d h w"]:
        """The words of a grid of ids."""
        return functional.embedding(ids, self.codebook).permute(0, 3, 1, 2)

    def forward(self, latent: Float[Tensor, "n d h w"]) -> Quantized:
        """Quantize; in training mode also move the codebook."""
        latent = functional.normalize(latent.float(), dim=1)
        if self.training:
            step = self._step
            self.steps += 1
            self._step += 1
            if step < self.config.warmup_steps:
                return Quantized(latent, self.ids(latent), latent.new_zeros(()))
            if step == self.config.warmup_steps:
                self._place_words(_rows(latent.detach()))
        ids = self.ids(latent)
        words = self.lookup(ids)
        loss = self.config.commitment * functional.mse_loss(latent, words.detach())
        vectors = latent + (words - latent).detach()
        if self.training:
            self._follow(_rows(latent.detach()), ids.flatten())
        return Quantized(vectors, ids, loss)

    @torch.no_grad()
    def _place_words(self, vectors: Float[Tensor, "m d"]) -> None:
        """Spherical k-means on the vectors of one batch."""
        random = rng.generator(0, "k-means")
        chosen = torch.randint(len(vectors), (self.config.num_codes,), generator=random)
        if len(vectors) >= self.config.num_codes:
            chosen = torch.randperm(len(vectors), generator=random)[: self.config.num_codes]
        words = vectors[chosen.to(vectors.device)]
        for _ in range(10):
            ids = (vectors @ words.T).argmax(dim=1)
            sums = distributed.sum_over_processes(torch.zeros_like(words).index_add_(0, ids, vectors))
            words = torch.where(sums.square().sum(dim=1, keepdim=True) > 0, functional.normalize(sums, dim=1), words)
        self.codebook.copy_(words)
        self.sums.copy_(words)
        self.usage.fill_(1.0)

    @torch.no_grad()
    def _follow(self, vectors: Float[Tensor, "m d"], ids: Int[Tensor, " m"]) -> None:
        """One step of the running means; words that starve move to vectors of this batch."""
        counts = distributed.sum_over_processes(
            torch.zeros_like(self.usage).index_add_(0, ids, vectors.new_ones(len(ids)))
        )
        sums = distributed.sum_over_processes(torch.zeros_like(self.codebook).index_add_(0, ids, vectors))
        scale = self.config.num_codes / counts.sum()  # usage 1 = the average word, whatever the batch
        self.usage.lerp_(counts * scale, 1 - self.config.decay)
        self.sums.lerp_(sums * scale, 1 - self.config.decay)
        random = rng.generator(0, "revive", self._step)
        chosen = torch.randint(len(vectors), (self.config.num_codes,), generator=random)
        candidates = vectors[chosen.to(ids.device, non_blocking=True)]
        starving = (self.usage < self.config.revive_below)[:, None]
        candidates = distributed.from_first_process(candidates)
        self.sums.copy_(torch.where(starving, candidates, self.sums))
        self.usage.copy_(torch.where(starving[:, 0], torch.ones_like(self.usage), self.usage))
        self.codebook.copy_(functional.normalize(self.sums, dim=1))


def _read_step(module: nn.Module, keys: object) -> None:
    assert isinstance(module, NormalizedQuantizer)
    module._step = int(module.steps)


AnyQuantizer = VectorQuantizer | NormalizedQuantizer


def build_quantizer(config: QuantizerConfig, width: int) -> AnyQuantizer:
    """The quantizer that `config.kind` names, for vectors of `width`."""
    return NormalizedQuantizer(config, width) if config.kind == "normalized" else VectorQuantizer(config, width)


def _rows(latent: Float[Tensor, "n d h w"]) -> Float[Tensor, "m d"]:
    return latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1])


class CodebookUsage(NamedTuple):
    """How much of a codebook is in use."""

    counts: Int[Tensor, " k"]
    used: float
    """Share of the words that occur at all."""
    perplexity: float
    """exp(entropy) of the words' frequencies; equals the number of words when all are equally frequent."""


def codebook_usage(ids: Int[Tensor, "..."], num_codes: int) -> CodebookUsage:
    """Count the words of any number of token grids."""
    counts = torch.bincount(ids.flatten().cpu(), minlength=num_codes)
    share = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(share, share).sum()
    return CodebookUsage(counts, float((counts > 0).double().mean()), float(entropy.exp()))
