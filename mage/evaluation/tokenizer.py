"""Judging a tokenizer: what its reconstructions lose, how its codebook is used, what its tokens know.

Letters: n images, c channels, H W pixels, h w tokens, k codes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mage import images
from mage.data.datasets import ImageDataset
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.features import Features
from mage.evaluation.frechet import FeatureStatistics, frechet_distance, too_few
from mage.evaluation.linear_probe import lbfgs_probe
from mage.evaluation.reconstruction import (
    divergence,
    label_information,
    position_entropy,
    ssim,
    token_histograms,
)
from mage.pipeline import Mage
from mage.tokenizers.quantizers import codebook_usage

FAR_DIVERGENCE, FAR_PSNR = 0.2, 3.0
"""Bits of divergence between code frequencies, and dB, from which on data counts as far from the training data."""
SHOWN = 8


@dataclass
class TokenizerQuality:
    """What was measured, how, and what is wrong."""

    metrics: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    code_counts: list[int] = field(default_factory=list)
    entropy_map: list[list[float]] = field(default_factory=list)
    """Bits at each token position."""
    picture: Tensor | None = None
    """Originals, reconstructions and errors, one above the other."""


def evaluate_tokenizer(
    model: Mage,
    dataset: ImageDataset,
    *,
    extractors: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    reference: dict[str, FeatureStatistics] | None = None,
    perceptual: nn.Module | None = None,
    perceptual_name: str = "",
    train: ImageDataset | None = None,
    batch_size: int = 128,
    on_images: Callable[[int], None] | None = None,
) -> TokenizerQuality:
    """Measure a tokenizer on all images of a data set, in one pass and constant memory but for the tokens.

    extractors: name -> images in [0, 1] to features (n, d), for the Frechet distance of the reconstructions.
    reference: statistics of the originals by extractor; missing ones are added, so that they are computed only once
    where several tokenizers are judged on one data set.
    perceptual: (images, targets) -> distance. train: labelled images, to train a classifier of token histograms on.
    """
    quality = TokenizerQuality()
    transform = TransformConfig(size=model.image_size)
    extractors = extractors or {}
    reference = {} if reference is None else reference
    missing = [name for name in extractors if name not in reference]
    reference |= {name: FeatureStatistics(name) for name in missing}
    statistics = {name: FeatureStatistics(name) for name in extractors}
    found: dict[str, list[Tensor]] = {"psnr_db": [], "ssim": [], "absolute_error": [], "perceptual": []}
    all_ids, all_labels, shown = [], [], None
    for batch in evaluation_batches(dataset, build_transform(transform), batch_size=batch_size):
        originals = images.to_float(batch["images"])
        ids = model.encode(originals, batch_size=batch_size).cpu()
        again = model.decode_tokens(ids, batch_size=batch_size).cpu().float()
        found["psnr_db"].append(images.psnr(again, originals))
        found["ssim"].append(ssim(again, originals))
        found["absolute_error"].append((again - originals).abs().flatten(1).mean(dim=1))
        if perceptual is not None:
            with torch.inference_mode():
                found["perceptual"].append(perceptual(again, originals).expand(len(again)))
        for name, extract in extractors.items():
            statistics[name].update(extract(images.to_float(images.to_uint8(again))))
            if name in missing:
                reference[name].update(extract(originals))
        all_ids.append(ids)
        all_labels.append(batch.get("labels", torch.zeros(0, dtype=torch.int64)))
        shown = (originals[:SHOWN], again[:SHOWN]) if shown is None else shown
        if on_images is not None:
            on_images(len(originals))
    ids, labels, count = torch.cat(all_ids), torch.cat(all_labels), sum(map(len, all_ids))
    quality.metrics["images"] = count
    quality.metrics |= {name: float(torch.cat(parts).mean()) for name, parts in found.items() if parts}
    if perceptual is not None:
        quality.protocols["perceptual"] = perceptual_name
    for name, found_statistics in statistics.items():
        if count >= 2:
            quality.metrics[f"fd_{name}"] = frechet_distance(reference[name], found_statistics)
            if warning := too_few(f"fd_{name}", reference[name], found_statistics):
                quality.warnings.append(warning)
            quality.protocols[f"fd_{name}"] = (
                f"{count:,} reconstructions against the same {count:,} images; 0 is perfect"
            )
    _judge_tokens(quality, model, ids, labels if len(labels) == count else None)
    if train is not None and len(labels) == count:
        _probe_histograms(quality, model, train, ids, labels, batch_size, on_images)
    _compare_with_training(quality, model)
    assert shown is not None
    quality.picture = side_by_side(*shown)
    return quality


def side_by_side(originals: Float[Tensor, "n c H W"], again: Float[Tensor, "n c H W"]) -> Float[Tensor, "c gh gw"]:
    """Three rows: originals, reconstructions, four times their absolute difference."""
    rows = [("original", originals), ("again", again), ("error x 4", ((originals - again).abs() * 4).clamp(0, 1))]
    return images.labelled_rows(rows)


def _judge_tokens(quality: TokenizerQuality, model: Mage, ids: Tensor, labels: Tensor | None) -> None:
    num_codes = model.require_tokenizer().num_codes
    usage = codebook_usage(ids, num_codes)
    entropy = position_entropy(ids, num_codes)
    quality.code_counts, quality.entropy_map = usage.counts.tolist(), entropy.tolist()
    quality.metrics |= {
        "codes_used": usage.used,
        "codebook_perplexity": usage.perplexity,
        "perplexity_share": usage.perplexity / num_codes,
        "position_entropy_bits": float(entropy.mean()),
        "position_entropy_bits_min": float(entropy.min()),
    }
    if labels is not None and int(labels.max()) > 0:
        information = label_information(ids, labels, num_codes)
        quality.metrics["label_information_bits"] = float(information.mean())
        quality.metrics["label_information_bits_max"] = float(information.max())
        quality.protocols["label_information_bits"] = "of one token, mean over positions; above that of shuffled labels"
    possible = min(num_codes, ids.numel())
    if usage.perplexity < 0.1 * possible:
        quality.warnings.append(
            f"the codebook has collapsed: of {num_codes} codes these images use as many as {usage.perplexity:.0f} "
            "equally frequent ones; train with quantizer.kind=normalized and a small code_width, or keep_alive=true"
        )


def _probe_histograms(
    quality: TokenizerQuality,
    model: Mage,
    train: ImageDataset,
    ids: Tensor,
    labels: Tensor,
    batch_size: int,
    on_images: Callable[[int], None] | None,
) -> None:
    seen, known = [], []
    transform = build_transform(TransformConfig(size=model.image_size))
    for batch in evaluation_batches(train, transform, batch_size=batch_size):
        seen.append(model.encode(images.to_float(batch["images"]), batch_size=batch_size).cpu())
        known.append(batch["labels"])
        if on_images is not None:
            on_images(len(known[-1]))
    num_codes = model.require_tokenizer().num_codes
    features = [
        Features(token_histograms(i, num_codes), given)
        for i, given in ((torch.cat(seen), torch.cat(known)), (ids, labels))
    ]
    quality.metrics["histogram_probe_accuracy"] = lbfgs_probe(*features).accuracy
    quality.protocols["histogram_probe_accuracy"] = (
        f"logistic regression on counts of codes, {len(features[0].labels):,} training images"
    )


def _compare_with_training(quality: TokenizerQuality, model: Mage) -> None:
    """Warn where the images are far from those that the tokenizer was trained on, as its notes tell."""
    notes: dict[str, Any] = model.notes.get("tokenizer", {})
    if not notes:
        return
    counts = torch.tensor(quality.code_counts, dtype=torch.float64)
    far = divergence(counts, torch.tensor(notes["code_counts"], dtype=torch.float64))
    loss = notes["psnr_db"] - quality.metrics["psnr_db"]
    quality.metrics |= {"divergence_from_training": far, "psnr_below_training_db": loss}
    quality.protocols["divergence_from_training"] = (
        f"Jensen-Shannon, bits, of the codes' frequencies here and on {notes['images']:,} held-out images like its own"
    )
    if far > FAR_DIVERGENCE or loss > FAR_PSNR:
        quality.warnings.append(
            f"these images are far from what the tokenizer was trained on: its codes' frequencies differ by {far:.2f} "
            f"bits and PSNR is {loss:.1f} dB below that on its own held-out images; train one on images like these"
        )
