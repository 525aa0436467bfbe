"""Keeping a codebook in use: words are initialised by k-means after a warm-up, and unused words are moved.

A codebook that starts at random collapses easily: the few words near the first vectors are chosen for all of them. So
the first steps run without quantization; then spherical or plain k-means on the vectors of one batch initialises the
words; from then on a word that is hardly used moves to a vector of the current batch.

Letters: m vectors, d code width, k codes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage import distributed, rng
from mage.device import send
from mage.tokenizers.quantizers.base import QuantizerConfig


class Census(NamedTuple):
    """Use of the words in one step, over all processes."""

    share: Float[Tensor, " k"]
    """Frequency of each word, relative to the average word."""
    scale: Float[Tensor, ""]
    """Factor from a count of vectors to such a frequency."""


class CodebookLife(nn.Module):
    """Counts steps and uses of the words, and decides which words to move where.

    A step's batch may come in several parts, one forward pass each: words are moved and counted once a step, after the
    last one. Only k-means and VQ's unused words take their vectors from the first part.
    """

    usage: Tensor
    steps: Tensor
    parts: int = 1
    """Of the batch of a training step, on each process."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("usage", torch.ones(config.num_codes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._step = 0  # a copy that is read without waiting for the device
        self._part, self._waiting = 0, list[tuple[Tensor, ...]]()
        self.register_load_state_dict_post_hook(_read_step)  # type: ignore[no-untyped-call]

    def begin(self) -> tuple[int, bool]:
        """Number of this training step, and whether this is its first part.

        0 is the step of k-means, steps of the warm-up are negative.
        """
        first = self._part == 0
        if first:
            self.steps += 1
            self._step += 1
            self._waiting = []
        self._part = (self._part + 1) % self.parts
        return self._step - 1 - self.config.warmup_steps, first

    def whole(self, *of_part: Tensor) -> tuple[Tensor, ...] | None:
        """These tensors of all parts of the step, along the first axis; None until the last part has come."""
        self._waiting.append(of_part)
        if self._part:
            return None
        parts, self._waiting = self._waiting, []
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    @torch.no_grad()
    def place(self, vectors: Float[Tensor, "m d"], *, spherical: bool) -> Float[Tensor, "k d"]:
        """Initial words: k-means on the vectors of one batch (of all processes)."""
        self.usage.fill_(1.0)
        return k_means(vectors, self.config.num_codes, spherical=spherical)

    @torch.no_grad()
    def census(self, ids: Int[Tensor, " m"]) -> Census:
        """Count one step's words and update the running use."""
        counts = torch.zeros_like(self.usage).index_add_(0, ids, self.usage.new_ones(len(ids)))
        counts = distributed.sum_over_processes(counts)
        scale = self.config.num_codes / counts.sum()
        self.usage.lerp_(counts * scale, 1 - self.config.decay)
        return Census(counts * scale, scale)

    @torch.no_grad()
    def revive(self, vectors: Float[Tensor, "m d"]) -> tuple[Bool[Tensor, "k 1"], Float[Tensor, "k d"]]:
        """Which words to move, and a vector of this batch for each word; moved words count as averagely used."""
        random = rng.generator(0, "revive", self._step)
        count = len(vectors) * distributed.world_size()
        chosen = torch.randint(count, (self.config.num_codes,), generator=random)
        candidates = distributed.rows_of_all(vectors, send(chosen, vectors.device))
        starving = self.usage < self.config.revive_below
        self.usage.copy_(torch.where(starving, torch.ones_like(self.usage), self.usage))
        return starving[:, None], candidates


def k_means(vectors: Float[Tensor, "m d"], count: int, *, spherical: bool, rounds: int = 10) -> Float[Tensor, "k d"]:
    """Lloyd's algorithm, initialised with random vectors; spherical: by angle, centres of length 1."""
    random = rng.generator(0, "k-means")
    everywhere = len(vectors) * distributed.world_size()
    chosen = torch.randint(everywhere, (count,), generator=random)
    if everywhere >= count:
        chosen = torch.randperm(everywhere, generator=random)[:count]
    words = distributed.rows_of_all(vectors, chosen.to(vectors.device))
    for _ in range(rounds):
        nearness = vectors @ words.T if spherical else negative_distances(vectors, words)
        ids = nearness.argmax(dim=1)
        sums = distributed.sum_over_processes(torch.zeros_like(words).index_add_(0, ids, vectors))
        counts = torch.zeros_like(words[:, :1]).index_add_(0, ids, words.new_ones(len(ids), 1))
        counts = distributed.sum_over_processes(counts)
        means = functional.normalize(sums, dim=1) if spherical else sums / counts.clamp(min=1)
        words = torch.where(counts > 0, means, words)
    return words


def negative_distances(vectors: Float[Tensor, "m d"], words: Float[Tensor, "k d"]) -> Float[Tensor, "m k"]:
    """Negative squared distance of every vector from every word, up to a constant per vector."""
    return torch.addmm(words.square().sum(dim=1).neg(), vectors, words.T, alpha=2)


def _read_step(module: nn.Module, keys: object) -> None:
    assert isinstance(module, CodebookLife)
    module._step, module._part = int(module.steps), 0
