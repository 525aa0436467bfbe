"""Mask ratios, random masks, and the schedule of masked tokens while decoding.

Paper, sections 3.1 and 3.2. In every image, ceil(ratio x L) tokens are masked. Of these, up to half of L are dropped
before the encoder, so that it always sees the same number of tokens; the other masked ones enter it as mask tokens.

Letters: n images, l tokens.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mage.device import move_together


@dataclass(frozen=True)
class MaskRatioConfig:
    """Distribution of the mask ratio; the paper's is a truncated normal distribution."""

    distribution: Literal["normal", "uniform", "cosine"] = "normal"
    """normal: the paper's. uniform: between low and high, as in BERT-style training. cosine: cos(pi/2 u) for uniform u,
    MaskGIT's, clamped to low and high."""
    mode: float = 0.55
    """Centre of the normal distribution."""
    std: float = 0.25
    """Standard deviation of the normal distribution; 0 means a fixed ratio, the mode."""
    low: float = 0.5
    """Smallest ratio; if tokens are dropped, also the share of tokens that the encoder never sees."""
    high: float = 1.0
    """Largest ratio."""
    drop: bool = True
    """Drop the share `low` of the tokens before the encoder; MaskGIT drops nothing."""
    per_image: bool = False
    """One ratio per image instead of one per step (the paper's, and the released checkpoints')."""
    spans: tuple[int, ...] = ()
    """Lengths of consecutive spans, repeated to the end of the grid, that are masked as wholes: [1, 41] are an action
    and a frame of 41 tokens, [8] are eight words. Empty: every token by itself."""
    span_share: float = 0.5
    """If there are spans: the share of images whose spans are masked as wholes; in others tokens are masked singly."""

    @property
    def drop_ratio(self) -> float:
        """Share of the tokens that are dropped before the encoder, if as many are masked."""
        return self.low if self.drop else 0.0

    def __post_init__(self) -> None:
        mode = self.mode if self.distribution == "normal" else self.low
        if not 0 < self.low <= mode <= self.high <= 1:
            raise ValueError(f"mask ratios need 0 < low <= mode <= high <= 1, not {self.low}, {mode}, {self.high}")
        if self.std < 0:
            raise ValueError(f"std of the mask ratio must be 0 or more, not {self.std}")
        if any(length < 1 for length in self.spans) or not 0 <= self.span_share <= 1:
            raise ValueError(
                f"spans are lengths of at least 1 and span_share lies in [0, 1], not {self.spans} and {self.span_share}"
            )


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
    """Tokens of each image that are masked, and those among them that are dropped before the encoder."""

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
        """Tokens per image that the encoder sees. Raises ValueError if images differ: a batch has one shape."""
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
        """Indices of the masked tokens in the flattened batch."""
        return self.masked.flatten().nonzero()[:, 0]

    def to(self, device: torch.device) -> "Mask":
        """The same mask on `device` by one copy, its kept tokens counted: there, counting would wait for the device."""
        kept_index, num_kept = self.kept_index, self.num_kept
        if device == self.masked.device:
            return self
        moved_index, masked, dropped = move_together([kept_index, self.masked, self.dropped], device)
        moved = Mask(masked=masked, dropped=dropped)
        vars(moved).update(num_kept=num_kept, kept_index=moved_index)
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
        raise ValueError(f"{len(ratio)} mask ratios for {len(noise)} images: give one ratio, or one per image")
    num_masked = (ratio * length).ceil().long()[:, None].to(noise.device)  # some devices have no float64
    num_dropped = num_masked.clamp(max=math.ceil(drop_ratio * length))
    rank = noise.argsort(dim=1, stable=True).argsort(dim=1)
    return Mask(masked=rank < num_masked, dropped=rank < num_dropped)


def span_noise(
    noise: Float[Tensor, "n l"], spans: tuple[int, ...], share: float, generator: torch.Generator
) -> Float[Tensor, "n l"]:
    """Noise that masks whole spans in random order, in a random share of the images; the others keep theirs.

    The ratio still says how many tokens are masked, so the last span of an image is masked in part.
    """
    count, length = noise.shape
    lengths = torch.tensor(spans).repeat(math.ceil(length / sum(spans)))
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)[:length]
    chosen = torch.rand(count, 1, generator=generator) < share
    order = torch.rand(count, len(lengths), generator=generator).argsort(dim=1)[:, owner]
    return torch.where(chosen, order + noise, noise)


@dataclass(frozen=True)
class StepMask:
    """Masks of a piece of a step's batch, and the weight of its loss in the batch's mean over masked tokens."""

    mask: Mask
    weight: float
    """The mean over pieces of (mean loss of the piece x weight) is the batch's mean loss."""


def random_mask(config: MaskRatioConfig, count: int, length: int, generator: torch.Generator) -> Mask:
    """Random masks for `count` images of `length` tokens each, on the CPU."""
    return step_mask(config, count, length, generator, range(count)).mask


def step_mask(config: MaskRatioConfig, count: int, length: int, generator: torch.Generator, rows: range) -> StepMask:
    """Masks for the `rows` of a training step's batch of `count` images, on the CPU.

    One ratio for the whole step, or one per image (`config.per_image`), and noise for every row are always drawn, so
    that the masks of a batch do not depend on its division into pieces.
    """
    ratios = sample_mask_ratio(config, count if config.per_image else 1, generator).expand(count)
    return masks_of_rows(config, ratios[None], length, generator, rows)


def masks_of_rows(
    config: MaskRatioConfig, ratios: Float[Tensor, "v n"], length: int, generator: torch.Generator, rows: range
) -> StepMask:
    """Like `step_mask`, from the ratios of every image in every view; masks are ordered by view."""
    views, count = ratios.shape
    noise = torch.rand(views, count, length, generator=generator)
    if config.spans:
        noise = span_noise(noise.flatten(0, 1), config.spans, config.span_share, generator).view_as(noise)
    own = slice(rows.start, rows.stop)
    mask = mask_from_noise(noise[:, own].flatten(0, 1), ratios[:, own].flatten(), drop_ratio=config.drop_ratio)
    masked = (ratios * length).ceil()
    mine, average = float(masked[:, own].sum()), float(masked.mean()) * views * len(rows)
    return StepMask(mask, mine / average)


Schedule = Literal["cosine", "linear", "arccos", "power"]


def num_still_masked(
    unknown_at_start: int, unknown: int, step: int, steps: int, schedule: Schedule = "cosine", power: float = 2.0
) -> int:
    """Number of tokens still masked after decoding step `step` of `steps` (section 3.2; in float64).

    At least one token becomes known, and one is left for later steps.
    """
    if unknown == 0:
        return 0
    share = masked_share((step + 1) / steps, schedule, power)
    return max(1, min(unknown - 1, math.floor(unknown_at_start * share)))


def masked_share(progress: float, schedule: Schedule = "cosine", power: float = 2.0) -> float:
    """Share of the tokens still masked after a share r of the steps.

    cosine (the paper's): cos(pi/2 r); linear: 1 - r; arccos: arccos(r) / (pi/2); power: 1 - r^power.
    """
    share: float = {
        "cosine": math.cos(math.pi / 2 * progress),
        "linear": 1 - progress,
        "arccos": math.acos(progress) / (math.pi / 2),
        "power": 1 - progress**power,
    }[schedule]
    return share
