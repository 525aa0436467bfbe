"""Metrics of tokens: codebook usage, information on the class of an image, and distance from the training data.

Letters: n images, h w tokens, l = h w, k codes.
"""

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import images, rng
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.features import Features
from mage.evaluation.linear_probe import lbfgs_probe
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.evaluation.tokenizer_metrics import TOKENIZER_METRICS, Tokenized, TokenizerMetric
from mage.tokenizers.quantizers import codebook_usage

FAR_DIVERGENCE, FAR_PSNR = 0.2, 3.0
"""Above these, images count as far from the training data: divergence of code frequencies in bits, PSNR lost in dB."""


def position_entropy(ids: Int[Tensor, "n h w"], num_codes: int) -> Float[Tensor, "h w"]:
    """Entropy of the codes at each position in bits; log2(k) if all codes are equally frequent."""
    entropy: Tensor = _entropy(_counts(ids.flatten(1), num_codes))
    return entropy.view(ids.shape[1:])


def label_information(ids: Int[Tensor, "n h w"], labels: Int[Tensor, " n"], num_codes: int) -> Float[Tensor, "h w"]:
    """Mutual information of the label and the code at each position, in bits.

    With few images the estimate is biased upwards. The estimate for shuffled labels is subtracted, so that the value of
    codes that are independent of the label is 0 on average, and can be negative.
    """
    flat, classes = ids.flatten(1), int(labels.max()) + 1
    own = _entropy(_counts(flat, num_codes))

    def remaining(classified: Tensor) -> Tensor:
        total = torch.zeros_like(own)
        for label in range(classes):
            chosen = flat[classified == label]
            if len(chosen):
                total += len(chosen) / len(flat) * _entropy(_counts(chosen, num_codes))
        return total

    shuffled = labels[torch.randperm(len(labels), generator=rng.generator(0, "shuffled labels"))]
    information: Tensor = remaining(shuffled) - remaining(labels)
    return information.view(ids.shape[1:])


def token_histograms(ids: Int[Tensor, "n h w"], num_codes: int) -> Float[Tensor, "n k"]:
    """Number of occurrences of each code in each image; their positions are ignored."""
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


def divergence_by_chance(first: Float[Tensor, " k"], second: Float[Tensor, " k"], *, draws: int = 5) -> float:
    """Mean divergence of two histograms if both came from one source: few tokens differ from their own source, too.

    The tokens of both are mixed and divided anew into as many and as many, so that codes which are rare are missed by
    either as often as they would be.
    """
    random = np.random.default_rng(rng.stream_seed(0, "divergence by chance"))
    both, count = (first + second).long().numpy(), int(first.sum())
    total = 0.0
    for part in random.multivariate_hypergeometric(both, count, size=draws, method="marginals"):
        total += divergence(torch.from_numpy(part).double(), torch.from_numpy(both - part).double())
    return total / draws


def _counts(columns: Int[Tensor, "n l"], num_codes: int) -> Float[Tensor, "l k"]:
    counts = torch.zeros(columns.shape[1], num_codes, dtype=torch.float64)
    counts.scatter_add_(1, columns.T, torch.ones(columns.T.shape, dtype=torch.float64))
    return counts


def _entropy(counts: Float[Tensor, "l k"]) -> Float[Tensor, " l"]:
    share = counts / counts.sum(dim=1, keepdim=True)
    bits: Tensor = -torch.special.xlogy(share, share).sum(dim=1) / math.log(2)
    return bits


@TOKENIZER_METRICS.register("codes")
class CodebookUse(TokenizerMetric):
    """Share of codes in use, perplexity, and entropy by position."""

    metrics: ClassVar = {
        "codes_used": Description(
            "Codes in use",
            "Share of the codebook's entries that occur at all in the tokens of test images.",
            "share",
            "higher",
        ),
        "codebook_perplexity": Description(
            "Codebook perplexity",
            "The number of equally frequent codes that would carry as much information as the codes do.",
            better="higher",
        ),
        "perplexity_share": Description(
            "Perplexity, share of codes", "Codebook perplexity over the number of codes.", "share", "higher"
        ),
        "position_entropy_bits": Description(
            "Entropy of a token",
            "Bits that the token at one position carries, mean over the positions. With fewer images than codes it "
            "comes out too small: compare it for equally many images.",
        ),
        "position_entropy_bits_min": Description(
            "Entropy of a token, least", "Bits that the token at the least varied position carries."
        ),
    }

    def measure(self, tokenized: Tokenized) -> Iterator[Metric]:
        """Codes in use, perplexity and entropy; counts by code and entropy by position in the details."""
        usage = codebook_usage(tokenized.ids, tokenized.num_codes)
        entropy = position_entropy(tokenized.ids, tokenized.num_codes)
        protocol, images_of = f"{tokenized.ids.numel():,} tokens", f"{len(tokenized.ids):,} images"
        yield self.metric("codes_used", usage.used, protocol, counts=usage.counts.tolist())
        yield self.metric("codebook_perplexity", usage.perplexity, protocol)
        yield self.metric("perplexity_share", usage.perplexity / tokenized.num_codes, protocol)
        yield self.metric("position_entropy_bits", float(entropy.mean()), images_of, map=entropy.tolist())
        yield self.metric("position_entropy_bits_min", float(entropy.min()), images_of)

    def warning(self, tokenized: Tokenized) -> str:
        """Warns of a collapsed codebook."""
        codes, perplexity = tokenized.num_codes, codebook_usage(tokenized.ids, tokenized.num_codes).perplexity
        if perplexity >= 0.1 * min(codes, tokenized.ids.numel()):
            return ""
        return (
            f"the codebook has collapsed: of {codes} codes these images use as many as {perplexity:.0f} equally "
            "frequent ones; train with quantizer.kind=normalized and a small code_width, or keep_alive=true"
        )


@TOKENIZER_METRICS.register("label_information")
class LabelInformation(TokenizerMetric):
    """Mutual information of single tokens and the class."""

    metrics: ClassVar = {
        "label_information_bits": Description(
            "Information on the class", "Bits that one token tells of the class, mean over the positions."
        ),
        "label_information_bits_max": Description(
            "Information on the class, most", "Bits that the most telling position tells of the class."
        ),
    }

    def measure(self, tokenized: Tokenized) -> Iterator[Metric]:
        """Mean and maximum over the positions, in bits."""
        if tokenized.labels is None or int(tokenized.labels.max()) == 0:
            raise NotMeasured
        information = label_information(tokenized.ids, tokenized.labels, tokenized.num_codes)
        protocol = "of one token, {}; above that of shuffled labels"
        yield self.metric("label_information_bits", float(information.mean()), protocol.format("mean over positions"))
        yield self.metric("label_information_bits_max", float(information.max()), protocol.format("the best position"))


@TOKENIZER_METRICS.register("histogram_probe")
class HistogramProbe(TokenizerMetric):
    """A linear classifier on counts of codes, without their positions."""

    metrics: ClassVar = {
        "histogram_probe_accuracy": Description(
            "Probe of code counts",
            "Test accuracy of a linear classifier that sees which codes an image has, and not where.",
            "share",
            "higher",
        )
    }

    def measure(self, tokenized: Tokenized) -> Iterator[Metric]:
        """Accuracy on the images of the pass, after training on the tokens of labelled training images."""
        train = self._protocol.train
        if train is None:
            raise NotMeasured
        if train.labels is None or tokenized.labels is None:
            raise NotMeasured("histogram_probe_accuracy: the images have no labels")
        ids, labels = [], []
        transform = build_transform(TransformConfig(size=tokenized.image_size))
        for batch in evaluation_batches(train, transform, batch_size=self._protocol.batch_size):
            ids.append(tokenized.encode(images.to_float(batch["images"])))
            labels.append(batch["labels"])
            if self._protocol.on_images is not None:
                self._protocol.on_images(len(batch["labels"]))
        train_histograms = Features(token_histograms(torch.cat(ids), tokenized.num_codes), torch.cat(labels))
        test_histograms = Features(token_histograms(tokenized.ids, tokenized.num_codes), tokenized.labels)
        protocol = f"logistic regression on counts of codes, {len(train_histograms.labels):,} training images"
        yield self.metric("histogram_probe_accuracy", lbfgs_probe(train_histograms, test_histograms).accuracy, protocol)


@TOKENIZER_METRICS.register("training_distance")
class DistanceFromTraining(TokenizerMetric):
    """Distance of the images from the tokenizer's training data, as recorded in its notes."""

    metrics: ClassVar = {
        "divergence_from_training": Description(
            "Divergence from training data",
            "How far the frequencies of codes are from those on the tokenizer's own held-out images, in bits, beyond "
            "what chance makes of as many tokens.",
            better="lower",
        ),
        "psnr_below_training_db": Description(
            "PSNR lost", "How far PSNR is below that on the tokenizer's own held-out images.", "decibel", "lower"
        ),
    }

    def measure(self, tokenized: Tokenized) -> Iterator[Metric]:
        """Divergence of the code frequencies, and loss of PSNR."""
        if not tokenized.notes:
            raise NotMeasured
        divergence, loss = self._found = self._distance(tokenized)
        held_out = f"{tokenized.notes['images']:,} held-out images like its own"
        protocol = f"Jensen-Shannon, bits, of the codes' frequencies here and on {held_out}, "
        protocol += "less that of both mixed and divided by chance"
        yield self.metric("divergence_from_training", divergence, protocol)
        yield self.metric("psnr_below_training_db", loss, f"below that on {held_out}")

    def warning(self, tokenized: Tokenized) -> str:
        """Warns of images far from the training data."""
        divergence, loss = self._found
        if divergence <= FAR_DIVERGENCE and loss <= FAR_PSNR:
            return ""
        return (
            f"these images are far from what the tokenizer was trained on: its codes' frequencies differ by "
            f"{divergence:.2f} bits and PSNR is {loss:.1f} dB below that on its own held-out images; train one on "
            "images like these"
        )

    def _distance(self, tokenized: Tokenized) -> tuple[float, float]:
        notes = tokenized.notes
        counts = codebook_usage(tokenized.ids, tokenized.num_codes).counts.double()
        own = torch.tensor(notes["code_counts"], dtype=torch.float64)
        bits = divergence(counts, own) - divergence_by_chance(counts, own)
        return bits, float(notes["psnr_db"]) - tokenized.psnr_db
