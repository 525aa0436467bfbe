"""The sums of an Inception Score, over class scores in batches.

The score is exp of the mean Kullback-Leibler divergence between p(class | image) and p(class), computed for ten parts
of the images and averaged over them.

Letters: n images, k classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PartScores:
    """Mean and standard deviation over the parts."""

    mean: float
    deviation: float


class InceptionScoreSums:
    """Sums of class scores for the Inception Score, with one integer of memory per image.

    Images are divided into parts by the same permutation as in torch-fidelity with the same seed.
    """

    def __init__(self, total: int, *, parts: int = 10, seed: int = 2020) -> None:
        """total: number of images. Raises ValueError for fewer images than parts."""
        if total < parts:
            raise ValueError(f"an Inception Score over {parts} parts needs at least {parts} images, not {total}")
        self.count, self.total = 0, total
        self._part = np.empty(total, dtype=np.int64)
        order = np.random.RandomState(seed).permutation(total)
        for part in range(parts):
            self._part[order[part * total // parts : (part + 1) * total // parts]] = part
        self._sizes = torch.from_numpy(np.bincount(self._part, minlength=parts)).double()
        self._probability = torch.empty(0, dtype=torch.float64)
        self._negative_entropy = torch.zeros(parts, dtype=torch.float64)

    def update(self, logits: Float[Tensor, "n k"]) -> None:
        """Add the class scores of the next images. Raises ValueError for more images than `total`."""
        if self.count + len(logits) > self.total:
            raise ValueError(f"{self.total} images were announced, more came")
        log_p = logits.detach().cpu().double().log_softmax(dim=1)
        p = log_p.exp()
        if not len(self._probability):
            self._probability = p.new_zeros(len(self._sizes), p.shape[1])
        parts = torch.from_numpy(self._part[self.count : self.count + len(logits)])
        self._probability.index_add_(0, parts, p)
        self._negative_entropy.index_add_(0, parts, (p * log_p).sum(dim=1))
        self.count += len(logits)

    def score(self) -> PartScores:
        """The score. Raises ValueError for fewer images than `total`."""
        if self.count != self.total:
            raise ValueError(f"{self.total} images were announced, {self.count} came")
        marginal = self._probability / self._sizes[:, None]
        # mean of sum p (log p - log q) over a part, with q the part's mean of p
        divergence = self._negative_entropy / self._sizes - torch.special.xlogy(marginal, marginal).sum(dim=1)
        scores = divergence.exp()
        return PartScores(float(scores.mean()), float(scores.std(correction=0)))
