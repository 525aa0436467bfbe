"""Scores of whole images by how much they surprise a model, for finding images that are unlike those of its training.

Each image has two maps with one number per token: its surprise (`Mage.surprise`), and the error of the tokenizer's
reconstruction. The map of surprise is scaled, pooled to one number, and high numbers are anomalies. What is normal is
measured on images like those of the training (`Normal`).

Letters: n images, c channels, H W pixels, h w tokens.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from mage.pipeline import Mage
from mage.pipeline.describing import DRAWS, PARTS

Pool = Literal["mean", "max", "top"]
Scale = Literal["expected", "none", "position", "error"]
TOP_SHARE = 0.1
LEAST_SPREAD = 0.1
"""Least standard deviation of a position, as a share of the mean over positions: a background hardly varies at all."""


@dataclass(frozen=True)
class Scoring:
    """How an image is scored."""

    parts: int = PARTS
    """Parts of the tokens: passes in each draw."""
    draws: int = DRAWS
    """Random divisions into parts that are averaged."""
    seed: int = 0
    """Seed of the divisions."""
    pool: Pool = "top"
    """mean: of all tokens. max: of the token with the largest number. top: mean of the tenth with the largest."""
    scale: Scale = "expected"
    """expected: nats above what the network expected, so that images of little content count as much as busy ones.
    none: nats. position: deviation from the mean of normal images at the same position, in their standard
    deviations. error: divided by the error of the tokenizer there, because what it cannot draw it encodes at random."""


class Maps(NamedTuple):
    """One number per token of each image, on the CPU."""

    surprise: Float[Tensor, "n h w"]
    """In nats."""
    expected: Float[Tensor, "n h w"]
    """What the network expected the surprise to be, in nats."""
    error: Float[Tensor, "n h w"]
    """Root mean square of the differences of the token's pixels, in [0, 1], from their reconstruction."""


def maps_of(model: Mage, pixels: Float[Tensor, "n c H W"], scoring: Scoring, *, batch_size: int = 64) -> Maps:
    """The maps of images of the model's size. Raises ValueError for a model that cannot score (`Mage.surprise`)."""
    ids = model.encode(pixels, batch_size=batch_size)
    found, expected = model.surprise_and_expected(
        ids, parts=scoring.parts, draws=scoring.draws, seed=scoring.seed, batch_size=batch_size
    )
    shown = model.decode_tokens(ids, batch_size=batch_size).float().cpu()
    squared = (shown - pixels.cpu()).square().mean(dim=1, keepdim=True)
    rows, columns = ids.shape[1:]
    error = functional.avg_pool2d(squared, (pixels.shape[2] // rows, pixels.shape[3] // columns))[:, 0]
    return Maps(found.float().cpu(), expected.float().cpu(), error.sqrt())


def pooled(values: Float[Tensor, "n h w"], pool: Pool) -> Float[Tensor, " n"]:
    """One number per image, as `Scoring.pool` says; the tenth has at least one token."""
    rows = values.flatten(1)
    if pool == "mean":
        return rows.mean(dim=1)
    count = 1 if pool == "max" else max(1, round(TOP_SHARE * rows.shape[1]))
    return rows.topk(count, dim=1).values.mean(dim=1)


@dataclass(frozen=True)
class Normal:
    """Averages over the maps of normal images, images like those of the training."""

    mean: Float[Tensor, "h w"]
    """Surprise at each position."""
    spread: Float[Tensor, "h w"]
    """Its standard deviation."""
    error: float

    @classmethod
    def of(cls, maps: Maps) -> "Normal":
        """What is normal, from maps of at least two images. Raises ValueError for fewer."""
        if len(maps.surprise) < 2:
            raise ValueError("what is normal is measured on at least two images: give more")
        spread = maps.surprise.std(dim=0)
        least = max(LEAST_SPREAD * float(spread.mean()), 1e-6)
        return cls(maps.surprise.mean(dim=0), spread.clamp(min=least), float(maps.error.mean()))


def scaled(maps: Maps, scale: Scale, normal: Normal | None) -> Float[Tensor, "n h w"]:
    """Maps of surprise, as `Scoring.scale` says. Raises ValueError without `normal` for scales that need it."""
    if scale == "none":
        return maps.surprise
    if scale == "expected":
        return maps.surprise - maps.expected
    if normal is None:
        raise ValueError(f"the scale {scale!r} needs normal images to compare with")
    if scale == "position":
        return (maps.surprise - normal.mean) / normal.spread
    # the usual error is added, because a cell without an error would be infinitely surprising
    return maps.surprise / (maps.error + max(normal.error, 1e-6))


def scores(maps: Maps, scoring: Scoring, normal: Normal | None = None) -> Float[Tensor, " n"]:
    """One number per image; high for anomalies."""
    return pooled(scaled(maps, scoring.scale, normal), scoring.pool)


def auroc(normal: Float[Tensor, " n"], new: Float[Tensor, " k"]) -> float:
    """Probability that an image of `new` has a higher score than one of `normal`, ties counted half; 0.5 is chance."""
    truth = torch.cat([torch.zeros(len(normal)), torch.ones(len(new))])
    return float(roc_auc_score(truth.numpy(), torch.cat([normal, new]).double().cpu().numpy()))
