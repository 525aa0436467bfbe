"""Contrastive loss between two views of an image: MAGE-C's (paper, section 3.3) and SimCLR's.

Each view becomes one unit vector; the other view of the same image is its positive, the images of the whole batch, of
all processes, are its negatives.

Letters: n images of this process, d encoder width, z width of the compared vectors.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from mage import distributed
from mage.nn.precision import in_full


@dataclass(frozen=True)
class ContrastConfig:
    """How two views are compared."""

    temperature: float = 0.2
    """Similarities are divided by this."""
    hidden_width: int = 0
    """Hidden width of the projection MLP; 0: that of the encoder, twice."""
    width: int = 256
    """Length of the vectors that are compared."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.width < 1 or self.hidden_width < 0:
            raise ValueError(
                "contrastive: temperature and width must be positive and hidden_width 0 or more, not "
                f"{self.temperature}, {self.width} and {self.hidden_width}"
            )


@dataclass(frozen=True)
class ContrastiveConfig(ContrastConfig):
    """MAGE-C's contrastive loss, added to the reconstruction loss of both views."""

    weight: float = 0.1
    """Weight of the contrastive loss relative to the reconstruction loss."""
    share_ratio: bool = False
    """Mask both views of an image at the same ratio."""
    max_ratio: float = 1.0
    """Contrast only images whose two views are both masked at most this much; below 1 it needs ratios per image."""
    schedule: Literal["constant", "rising", "falling"] = "constant"
    """Weight during training: constant, rising linearly from 0, or falling linearly to 0."""
    stop_gradient: bool = False
    """Stop the gradient at the positive: each view moves towards the other, which stays fixed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight <= 0:
            raise ValueError(f"contrastive.weight must be positive, not {self.weight}; without contrast, take MAGE")
        if not 0 < self.max_ratio <= 1:
            raise ValueError(f"contrastive.max_ratio must lie in (0, 1], not {self.max_ratio}")

    def weight_at(self, progress: float) -> float:
        """The weight at a share `progress` of the training."""
        factor = {"constant": 1.0, "rising": progress, "falling": 1 - progress}[self.schedule]
        return self.weight * factor


class Projection(nn.Module):
    """Two layers onto the unit sphere, with a LayerNorm between them: batch statistics would differ by process."""

    def __init__(self, width: int, config: ContrastConfig) -> None:
        super().__init__()
        hidden = config.hidden_width or 2 * width
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.LayerNorm(hidden, eps=1e-6), nn.GELU(), nn.Linear(hidden, config.width)
        )

    def forward(self, pooled: Float[Tensor, "n d"]) -> Float[Tensor, "n z"]:
        """Pooled encoder outputs -> vectors of length 1, in float32."""
        return functional.normalize(in_full(self.layers(pooled)), dim=1)


def info_nce(
    first: Float[Tensor, "n z"],
    second: Float[Tensor, "n z"],
    *,
    temperature: float,
    use: Bool[Tensor, " n"] | None = None,
    same_view: bool = False,
) -> Float[Tensor, ""]:
    """Mean over this process's images and both directions of -log softmax(similarity / temperature) at the positive.

    Negatives are the other view's vectors from all processes, with gradients (van den Oord et al. 2018);
    with `same_view` also those of the same view, except the image's own (SimCLR; Chen et al. 2020, equation 1).
    use: the images that count, as anchors and as negatives; the mean is over those of all processes.
    Averaged over processes with equal batches, value and gradient equal those of one process with the whole batch.
    Similarities are computed in the vectors' own precision, under autocast too: divided by a small temperature, the
    rounding error of bfloat16 would be a visible part of the gradient.
    """
    with torch.autocast(first.device.type, enabled=False):
        return _info_nce(first, second, temperature, use, same_view)


def _info_nce(
    first: Float[Tensor, "n z"],
    second: Float[Tensor, "n z"],
    temperature: float,
    use: Bool[Tensor, " n"] | None,
    same_view: bool,
) -> Float[Tensor, ""]:
    everything = [distributed.gather_with_gradient(part) for part in (first, second)]
    counts = first.new_ones(len(first), dtype=torch.bool) if use is None else use
    counted = distributed.gather_with_gradient(counts.to(first.dtype)) > 0
    own = torch.arange(len(first), device=first.device) + distributed.rank() * len(first)
    diagonal = own[:, None] == torch.arange(len(counted), device=first.device)
    total = first.new_zeros(())
    for anchor, same, other in ((first, *everything), (second, *reversed(everything))):
        scores = (anchor @ other.T / temperature).masked_fill(~counted, -torch.inf)
        if same_view:
            same_view_scores = (anchor @ same.T / temperature).masked_fill(diagonal | ~counted, -torch.inf)
            scores = torch.cat([scores, same_view_scores], dim=1)
        # Filled, not selected: one shape, however many images count.
        losses = functional.cross_entropy(scores, own, reduction="none")
        total = total + losses.masked_fill(~counts, 0).sum()
    # Every process divides by the images per process, so that the mean over processes is the mean over images.
    share = counted.sum().clamp(min=1) / distributed.world_size()
    return total / (2 * share)


def agreement(first: Float[Tensor, "n z"], second: Float[Tensor, "n z"]) -> Float[Tensor, ""]:
    """Share of this process's images whose nearest vector, among the other views of all processes, is their own."""
    nearest = (first @ distributed.gather_with_gradient(second).T).argmax(dim=1)
    own = torch.arange(len(first), device=first.device) + distributed.rank() * len(first)
    return (nearest == own).float().mean()
