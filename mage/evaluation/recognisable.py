"""Recognisable samples: confidence of a judge, a classifier trained on real images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from mage import images
from mage.data.datasets import spread
from mage.evaluation.confusion import wilson_interval
from mage.evaluation.judge import Judge, JudgeConfig, load_or_train
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.evaluation.sample_metrics import SAMPLE_METRICS, SampleMetric, SamplesAndData

CONFIDENT = 0.8
"""Probability of the most probable class above which the judge counts as confident."""


@dataclass(frozen=True)
class Verdict:
    """Predictions of a judge for a set of images; all numbers are shares from 0 to 1."""

    confident_share: float
    """Share of images whose most probable class has a probability above CONFIDENT."""
    class_shares: list[float]
    """Share of images by their most probable class."""


def ask(judge: Judge, pixels: UInt8[Tensor, "n c h w"]) -> Verdict:
    """Classify images."""
    with torch.inference_mode():
        scores = torch.cat([judge(part.to(judge.head.weight.device)).float().cpu() for part in pixels.split(500)])
    best = scores.softmax(dim=1).max(dim=1)
    counts = torch.bincount(best.indices, minlength=scores.shape[1])
    return Verdict(float((best.values > CONFIDENT).double().mean()), (counts / len(pixels)).tolist())


@SAMPLE_METRICS.register("recognisable")
class Recognisable(SampleMetric):
    """Share of samples and of real images that the judge is confident of, and frequency of their rarest classes."""

    metrics: ClassVar = {
        "sample_confident_share": Description(
            "Samples a judge is sure of",
            "Share of generated images of which a classifier trained on real images is more than 80 % sure. It can be "
            "sure of noise, too: look at the samples.",
            "share",
            "higher",
        ),
        "real_confident_share": Description(
            "Real images a judge is sure of",
            "The same share for real test images: what generated images could reach at best.",
            "share",
        ),
        "class_share_min": Description(
            "Rarest class",
            "Share of generated images that fall into the least frequent class: near 0 means that a class was "
            "forgotten.",
            "share",
            "higher",
        ),
        "class_share_min_real": Description(
            "Rarest class, real images",
            "The same for as many real test images: by chance alone the least of several shares is small.",
            "share",
        ),
    }

    def measure(self, subject: SamplesAndData) -> Iterator[Metric]:
        """The shares; that of the rarest class of real images only if there are as many of them as samples."""
        if subject.labels is None:
            raise NotMeasured
        config = JudgeConfig(mirror=subject.mirrored)
        judge = load_or_train(
            subject.train, subject.labels, config, cache=subject.cache, precision=subject.precision,
            device=subject.device,
        )  # fmt: skip
        samples, real = ask(judge, images.to_uint8(subject.samples)), ask(judge, subject.test)
        network = f"a convolutional network trained on {len(subject.train):,} real images is > {CONFIDENT} sure"
        sets = {"sample": (samples, len(subject.samples), "samples"), "real": (real, len(subject.test), "test images")}
        for kind, (verdict, count, images_of) in sets.items():
            share = verdict.confident_share
            interval = list(wilson_interval(round(share * count), count))
            yield self.metric(f"{kind}_confident_share", share, f"{count:,} {images_of}; {network}", interval=interval)
        yield self.metric("class_share_min", min(samples.class_shares), f"{len(subject.samples)} samples; its verdict")
        if len(subject.test) >= len(subject.samples):
            some = subject.test[spread(len(subject.test), len(subject.samples))]
            rarest = min(ask(judge, some).class_shares)
            yield self.metric("class_share_min_real", rarest, f"{len(some)} test images; its verdict")
