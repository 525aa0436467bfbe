"""How near reconstructions are to their images, and what the tokens in between tell.

Letters: n images, c channels, H W pixels, h w tokens, k codes.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from mage import images, rng
from mage.tokenizers import Tokenizer
from mage.tokenizers.quantizers import codebook_usage

WINDOW, SIGMA = 11, 1.5
"""SSIM's Gaussian window, in pixels."""


class ReconstructionQuality(NamedTuple):
    """What a tokenizer keeps of some images."""

    metrics: dict[str, float]
    """psnr_db (mean over images, clamped to [0, 1]), codes_used (a share), codebook_perplexity."""
    code_counts: Int[Tensor, " k"]
    """How often each code occurs."""


def reconstruction_quality(tokenizer: Tokenizer, pixels: UInt8[Tensor, "n c H W"]) -> ReconstructionQuality:
    """A first look at a tokenizer: `mage.evaluation.tokenizer` measures more. Batches go to where its weights are."""
    device = _device_of(tokenizer)
    errors, ids = [], []
    for part in pixels.split(256):
        targets = images.to_float(part.to(device))
        codes = tokenizer.encode(targets)
        errors.append(images.psnr(tokenizer.decode(codes), targets))
        ids.append(codes.cpu())
    usage = codebook_usage(torch.cat(ids), tokenizer.num_codes)
    metrics = {
        "psnr_db": float(torch.cat(errors).mean()),
        "codes_used": usage.used,
        "codebook_perplexity": usage.perplexity,
    }
    return ReconstructionQuality(metrics, usage.counts)


def rows_of_reconstructions(
    tokenizer: Tokenizer, pixels: UInt8[Tensor, "n c H W"], *, columns: int = 8
) -> Float[Tensor, "c gh gw"]:
    """A grid with originals in every other row and their reconstructions below."""
    originals = images.to_float(pixels.to(_device_of(tokenizer)))
    again = tokenizer.decode(tokenizer.encode(originals))
    rows = [part for pair in zip(originals.split(columns), again.split(columns), strict=True) for part in pair]
    return images.make_grid(torch.cat(rows).cpu(), columns=columns)


def _device_of(tokenizer: Tokenizer) -> torch.device:
    return next(tokenizer.parameters()).device if isinstance(tokenizer, nn.Module) else torch.device("cpu")


def ssim(first: Float[Tensor, "n c H W"], second: Float[Tensor, "n c H W"]) -> Float[Tensor, " n"]:
    """Structural similarity of each pair of images in [0, 1] (Wang et al. 2004), mean over windows and channels.

    Gaussian windows of 11 pixels that lie inside the image; images smaller than that have the largest odd window.
    """
    x, y = first.float(), second.float()
    side = min(WINDOW, *((length - 1) // 2 * 2 + 1 for length in x.shape[-2:]))
    line = torch.exp(-0.5 * ((torch.arange(side, device=x.device) - side // 2) / SIGMA).square())
    line = line / line.sum()
    channels = x.shape[1]

    def blurred(image: Tensor) -> Tensor:
        along = functional.conv2d(image, line.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
        return functional.conv2d(along, line.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)

    mean_x, mean_y = blurred(x), blurred(y)
    variance = blurred(x * x) + blurred(y * y) - mean_x.square() - mean_y.square()
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance + c2)
    similarity: Tensor = (brightness * structure).flatten(1).mean(dim=1)
    return similarity


def position_entropy(ids: Int[Tensor, "n h w"], num_codes: int) -> Float[Tensor, "h w"]:
    """Entropy of the codes at each position, in bits: log2(k) where all are equally frequent."""
    entropy: Tensor = _entropy(_counts(ids.flatten(1), num_codes))
    return entropy.view(ids.shape[1:])


def label_information(ids: Int[Tensor, "n h w"], labels: Int[Tensor, " n"], num_codes: int) -> Float[Tensor, "h w"]:
    """Mutual information of the label and the code at each position, in bits.

    Few images make any two variables look related; what shuffled labels show of that is taken off, so that the value
    is 0 on average, and may be below it, where codes tell nothing.
    """
    flat, classes = ids.flatten(1), int(labels.max()) + 1
    own = _entropy(_counts(flat, num_codes))

    def remaining(given: Tensor) -> Tensor:
        total = torch.zeros_like(own)
        for label in range(classes):
            chosen = flat[given == label]
            if len(chosen):
                total += len(chosen) / len(flat) * _entropy(_counts(chosen, num_codes))
        return total

    shuffled = labels[torch.randperm(len(labels), generator=rng.generator(0, "shuffled labels"))]
    information: Tensor = remaining(shuffled) - remaining(labels)
    return information.view(ids.shape[1:])


def token_histograms(ids: Int[Tensor, "n h w"], num_codes: int) -> Float[Tensor, "n k"]:
    """How often each code occurs in each image: features that know nothing of place."""
    flat = ids.flatten(1)
    counts: Tensor = torch.zeros(len(flat), num_codes).scatter_add_(1, flat, torch.ones(flat.shape))
    return counts


def divergence(first: Float[Tensor, " k"], second: Float[Tensor, " k"]) -> float:
    """Jensen-Shannon divergence of two distributions or histograms, in bits: 0 equal, 1 disjoint."""
    p, q = first.double() / first.sum(), second.double() / second.sum()
    middle = (p + q) / 2

    def relative(a: Tensor) -> Tensor:
        total: Tensor = torch.special.xlogy(a, a / middle.clamp(min=1e-300)).sum()
        return total

    return float((relative(p) + relative(q)) / 2 / math.log(2))


def _counts(columns: Int[Tensor, "n l"], num_codes: int) -> Float[Tensor, "l k"]:
    counts = torch.zeros(columns.shape[1], num_codes, dtype=torch.float64)
    counts.scatter_add_(1, columns.T, torch.ones(columns.T.shape, dtype=torch.float64))
    return counts


def _entropy(counts: Float[Tensor, "l k"]) -> Float[Tensor, " l"]:
    share = counts / counts.sum(dim=1, keepdim=True)
    bits: Tensor = -torch.special.xlogy(share, share).sum(dim=1) / math.log(2)
    return bits
