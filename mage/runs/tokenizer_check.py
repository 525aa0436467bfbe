"""Whether a model's tokenizer is good enough for other images: what it loses of them, and what that is compared with.

MAGE never draws what the tokenizer cannot. Its PSNR on images of another kind is compared with that on the held-out
images of its own training, which the model's notes hold; a model without notes must at least beat the plainest
reconstruction from as many numbers, one average colour per token. PSNR also depends on the images themselves: pictures
with hard edges have a lower one under every tokenizer. A needless tuning costs a share of the time, and nothing else.

Letters: n images, c channels, H W pixels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from mage import images
from mage.pipeline import Mage
from mage.tokenizers.perceptual import build_perceptual

TOLERATED_DB = 1.0
"""PSNR below that on the tokenizer's own held-out images up to which it counts as good enough."""
AT_ONCE = 256
"""Images of one pass of the perceptual network."""


@dataclass(frozen=True)
class TokenizerCheck:
    """Reconstructions of held-out images by a tokenizer, and by average colours."""

    images: int
    psnr_db: float
    cells_psnr_db: float
    """Of one average colour per token."""
    own_psnr_db: float | None = None
    """On the held-out images of the tokenizer's training; None if it is not known."""
    perceptual: float | None = None
    """Perceptual distance (EfficientNet-Lite0); None without the package, or for images that are neither grey nor RGB.
    """
    cells_perceptual: float | None = None

    @property
    def loses_too_much(self) -> bool:
        """Whether the images are reconstructed worse than they have to be."""
        if self.own_psnr_db is None:
            return self.psnr_db < self.cells_psnr_db
        return self.psnr_db < self.own_psnr_db - TOLERATED_DB

    @property
    def short(self) -> str:
        """The PSNR beside what it is compared with."""
        other = f"{self.cells_psnr_db:.1f} dB by one average colour per token"
        if self.own_psnr_db is not None:
            other = f"{self.own_psnr_db:.1f} dB on the images it was trained for"
        return f"PSNR {self.psnr_db:.1f} dB, {other}"

    @property
    def sentence(self) -> str:
        """The numbers."""
        own = "" if self.own_psnr_db is None else f"{self.own_psnr_db:.1f} dB on the images it was trained for, "
        perceptual = ""
        if self.perceptual is not None and self.cells_perceptual is not None:
            perceptual = f"; perceptual distance {self.perceptual:.3f}, by average colours {self.cells_perceptual:.3f}"
        return (
            f"the tokenizer reconstructs {self.images:,} held-out images with a PSNR of {self.psnr_db:.1f} dB ({own}"
            f"{self.cells_psnr_db:.1f} dB by one average colour per token){perceptual}"
        )


def check_tokenizer(model: Mage, pixels: UInt8[Tensor, "n c H W"]) -> TokenizerCheck:
    """Measure the model's tokenizer on images of its size."""
    originals = images.to_float(pixels)
    decoded = model.decode_tokens(model.encode(originals)).cpu().float()
    averages = cell_averages(originals, model.require_tokenizer().grid)
    network = perceptual_network(model.channels)
    notes = model.notes.get("tokenizer")
    own = notes.get("psnr_db") if isinstance(notes, dict) else None
    return TokenizerCheck(
        len(pixels),
        float(images.psnr(decoded, originals).mean()),
        float(images.psnr(averages, originals).mean()),
        float(own) if isinstance(own, int | float) else None,
        None if network is None else _distance(network, decoded, originals),
        None if network is None else _distance(network, averages, originals),
    )


def better(new: TokenizerCheck, old: TokenizerCheck) -> bool:
    """Whether a tuned tokenizer is to be used."""
    return new.psnr_db > old.psnr_db


def tokenizer_warnings(check: TokenizerCheck, tuned: TokenizerCheck | None) -> list[str]:
    """What the model cannot draw because of its tokenizer. tuned: the check after tuning, if it was tried."""
    sentences, used = [], check
    if tuned is not None and better(tuned, check):
        used = tuned
    elif tuned is not None:
        sentences.append(
            f"tuning did not make the tokenizer better on held-out images (PSNR {check.psnr_db:.1f} dB before, "
            f"{tuned.psnr_db:.1f} dB after), so it is kept as it was"
        )
    if used.loses_too_much:
        advice = "tune it with --tokenizer tune, or train one" if tuned is None else "train one"
        sentences.append(
            f"the tokenizer loses much of these images, which the model then never draws ({used.short}): "
            f"{advice} on these images by `mage train-tokenizer`"
        )
    return sentences


def cell_averages(pixels: Float[Tensor, "n c H W"], grid: tuple[int, int]) -> Float[Tensor, "n c H W"]:
    """Images whose every token's cell has its average colour."""
    return functional.interpolate(functional.adaptive_avg_pool2d(pixels, grid), pixels.shape[-2:], mode="nearest")


def perceptual_network(channels: int) -> nn.Module | None:
    """The perceptual distance of the check and the report; None where it cannot be computed."""
    if channels not in images.PIL_MODES:
        return None
    try:
        return build_perceptual("efflite0")
    except ValueError:  # the extra is not installed
        return None


@torch.inference_mode()
def _distance(network: Any, decoded: Tensor, originals: Tensor) -> float:
    parts = zip(decoded.split(AT_ONCE), originals.split(AT_ONCE), strict=True)
    return sum(float(network(part, target)) * len(part) for part, target in parts) / len(originals)
