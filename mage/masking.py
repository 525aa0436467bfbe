"""What is hidden from the network: mask ratios, random masks, and how many tokens stay masked while decoding.

Paper, section 3.1 and 3.2. In every image, ceil(ratio x L) tokens are masked; of these, up to half of L are dropped
before the encoder, which so always sees the same number of tokens; the other masked ones enter it as mask tokens.

Letters: n images, l tokens.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class MaskRatioConfig:
    """Distribution of the mask ratio: the paper's is a normal one, cut off at both ends."""

    distribution: Literal["normal", "uniform", "cosine"] = "normal"
    """normal: the paper's. uniform: between low and high, as in BERT-style training. cosine: cos(pi/2 u) for uniform u,
    MaskGIT's, held between low and high."""
    mode: float = 0.55
    """Centre of the normal distribution."""
    std: float = 0.25
    """Its standard deviation; 0 means a fixed ratio, the mode."""
    low: float = 0.5
    """Smallest ratio; also the share of tokens that the encoder never sees, if any are dropped."""
    high: float = 1.0
    """Largest ratio."""
    drop: bool = True
    """Drop the share `low` of the tokens before the encoder; MaskGIT drops nothing."""
    per_image: bool = False
    """One ratio per image instead of one per step (the paper's, and the released checkpoints')."""

    @property
    def drop_ratio(self) -> float:
        """Share of the tokens that are dropped before the encoder, if as many are masked."""
        return self.low if self.drop else 0.0

    def __post_init__(self) -> None:
        mode = self.mode if self.distribution == "normal" else self.low
        if not 0 < self.low <= mode <= self.high <= 1:
            raise ValueError(f"mask ratios need 0 < low <= mode <= high <= 1, not {self.low}, {mode}, {self.high}")
        if self.std < 0:
            raise ValueError(f"std of the mask ratio must not be negative, is {self.std}")


def sample_mask_ratio(config: MaskRatioConfig, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
    """Draw `count` ratios by inverting the distribution function (float64)."""
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    if config.distribution == "uniform":
        return config.low + uniform * (config.high - config.low)
    if config.distribution == "cosine":
        return uniform.mul(math.pi / 2).cos().clamp(config.low, config.high)
    if config.std == 0:
        return torch.full_like(uniform, config.mode)
    edges = (torch.tensor([config.low, config.high], dtype=torch.float64) - config.mode) / config.std
    low, high = torch.special.ndtr(edges)
    ratio: Tensor = config.mode + config.std * torch.special.ndtri(low + uniform * (high - low))
    return ratio.clamp(config.low, config.high)


@dataclass(frozen=True)
class Mask:
    """Which tokens of each image are masked, and which of those are not even shown to the encoder."""

    masked: Bool[Tensor, "n l"]
    dropped: Bool[Tensor, "n l"]

    def __post_init__(self) -> None:
        if self.masked.shape != self.dropped.shape:
            raise ValueError(f"masked is {tuple(self.masked.shape)}, dropped {tuple(self.dropped.shape)}: must agree")

    @classmethod
    def nothing_dropped(cls, masked: Bool[Tensor, "n l"]) -> "Mask":
        """For sampling: the encoder sees every position, masked ones as mask tokens."""
        mask = cls(masked=masked, dropped=torch.zeros_like(masked))
        vars(mask)["num_kept"] = masked.shape[1]
        return mask

    @cached_property
    def num_kept(self) -> int:
        """Tokens of one image that the encoder sees. Raises ValueError where images differ: batches need one shape."""
        kept = (~self.dropped).sum(dim=1)
        least, most = int(kept.min()), int(kept.max())
        if least != most:
            raise ValueError(f"images keep between {least} and {most} tokens; within a batch the number must be equal")
        return most

    @cached_property
    def kept_index(self) -> Int[Tensor, "n kept"]:
        """Positions of the kept tokens, in order."""
        return self.dropped.to(torch.uint8).argsort(dim=1, stable=True)[:, : self.num_kept]

    @cached_property
    def masked_index(self) -> Int[Tensor, " masked"]:
        """Where the masked tokens of all images stand, counted through image after image."""
        return self.masked.flatten().nonzero()[:, 0]

    def to(self, device: torch.device) -> "Mask":
        """The same mask on `device`. What was counted here is not counted there, where it would stop the queue."""
        if device == self.masked.device:
            return self
        masked, dropped, kept_index, masked_index = (
            part.to(device, non_blocking=True)
            for part in (self.masked, self.dropped, self.kept_index, self.masked_index)
        )
        moved = Mask(masked=masked, dropped=dropped)
        vars(moved).update(num_kept=self.num_kept, kept_index=kept_index, masked_index=masked_index)
        return moved


def mask_from_noise(
    noise: Float[Tensor, "n l"], mask_ratio: float | Float[Tensor, "*n"], drop_ratio: float = 0.5
) -> Mask:
    """Mask the tokens with the least noise: ceil(ratio x l) masked, of them min(ceil(drop_ratio x l), masked) dropped.

    `mask_ratio` is one number, or one per image; equal noise values are ranked by position. Section 3.1.
    """
    length = noise.shape[1]
    ratio = torch.as_tensor(mask_ratio, dtype=torch.float64).flatten()
    if not ((ratio >= 0) & (ratio <= 1)).all() or not 0 <= drop_ratio <= 1:
        raise ValueError(f"mask_ratio and drop_ratio must lie in [0, 1], not {mask_ratio} and {drop_ratio}")
    if len(ratio) not in (1, len(noise)):
        raise ValueError(f"{len(ratio)} mask ratios for {len(noise)} images: give one, or one per image")
    num_masked = (ratio * length).ceil().long()[:, None].to(noise.device)  # some devices have no float64
    num_dropped = num_masked.clamp(max=math.ceil(drop_ratio * length))
    rank = noise.argsort(dim=1, stable=True).argsort(dim=1)
    return Mask(masked=rank < num_masked, dropped=rank < num_dropped)


@dataclass(frozen=True)
class StepMask:
    """Masks of some rows of a step's batch, and how much those rows count in the mean over its masked tokens."""

    mask: Mask
    weight: float
    """The mean loss of these rows times this, averaged over all pieces of the batch, is the batch's mean loss."""


def random_mask(config: MaskRatioConfig, count: int, length: int, generator: torch.Generator) -> Mask:
    """Random masks for `count` images of `length` tokens each, on the CPU."""
    return step_mask(config, count, length, generator, range(count)).mask


def step_mask(config: MaskRatioConfig, count: int, length: int, generator: torch.Generator, rows: range) -> StepMask:
    """The masks of a training step's batch of `count` images, of which only `rows` are made; on the CPU.

    One ratio for the whole step, or one per image (`config.per_image`), and noise for every row are drawn whatever the
    rows, so that the masks of a batch do not depend on how it is cut into pieces.
    """
    ratios = sample_mask_ratio(config, count if config.per_image else 1, generator).expand(count)
    return masks_of_rows(ratios[None], length, generator, rows, drop_ratio=config.drop_ratio)


def masks_of_rows(
    ratios: Float[Tensor, "v n"], length: int, generator: torch.Generator, rows: range, *, drop_ratio: float
) -> StepMask:
    """As `step_mask`, for given ratios of every image in every view: masks view after view."""
    views, count = ratios.shape
    noise = torch.rand(views, count, length, generator=generator)
    own = slice(rows.start, rows.stop)
    mask = mask_from_noise(noise[:, own].flatten(0, 1), ratios[:, own].flatten(), drop_ratio=drop_ratio)
    masked = (ratios * length).ceil()
    mine, average = float(masked[:, own].sum()), float(masked.mean()) * views * len(rows)
    return StepMask(mask, mine / average)


Schedule = Literal["cosine", "linear", "arccos", "power"]


def num_still_masked(
    unknown_at_start: int, unknown: int, step: int, steps: int, schedule: Schedule = "cosine", power: float = 2.0
) -> int:
    """How many tokens stay masked after decoding step `step` of `steps` (section 3.2; in float64).

    schedule: the share that stays after the part r of the steps: cosine, the paper's, cos(pi/2 r); linear, 1 - r;
    arccos, arccos(r) / (pi/2); power, 1 - r^power. At least one token becomes known, and one stays for later steps.
    """
    if unknown == 0:
        return 0
    progress = (step + 1) / steps
    share: float = {
        "cosine": math.cos(math.pi / 2 * progress),
        "linear": 1 - progress,
        "arccos": math.acos(progress) / (math.pi / 2),
        "power": 1 - progress**power,
    }[schedule]
    return max(1, min(unknown - 1, math.floor(unknown_at_start * share)))
