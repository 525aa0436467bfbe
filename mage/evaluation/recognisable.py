"""Can one see what a sample shows? A judge, trained on the real images, is asked how sure it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from mage import images
from mage.evaluation.judge import Judge, JudgeConfig, load_or_train
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.evaluation.sample_metrics import SAMPLE_METRICS, SampleMetric, SamplesAndData

CONFIDENT = 0.8


@dataclass(frozen=True)
class Verdict:
    """What a judge thinks of a set of images; all numbers are shares from 0 to 1."""

    confident_share: float
    """Images whose most probable class has a probability above 0.8."""
    class_shares: list[float]
    """How often each class is the most probable one."""


def ask(judge: Judge, pixels: UInt8[Tensor, "n c h w"]) -> Verdict:
    """Classify images."""
    with torch.inference_mode():
        scores = torch.cat([judge(part.to(judge.head.weight.device)).float().cpu() for part in pixels.split(500)])
    best = scores.softmax(dim=1).max(dim=1)
    counts = torch.bincount(best.indices, minlength=scores.shape[1])
    return Verdict(float((best.values > CONFIDENT).double().mean()), (counts / len(pixels)).tolist())


@SAMPLE_METRICS.register("recognisable")
class Recognisable(SampleMetric):
    """How often the judge is sure, of samples and of real images, and how often it sees each class."""

    metrics: ClassVar = {
        "sample_confident_share": Description(
            "Recognisable samples",
            "Share of generated images of which a classifier trained on real images is more than 80 % sure.",
            "share",
            "higher",
        ),
        "real_confident_share": Description(
            "Recognisable real images",
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
    }

    def measure(self, subject: SamplesAndData) -> Iterator[Metric]:
        """The three shares."""
        if subject.labels is None:
            raise NotMeasured
        config = JudgeConfig(mirror=subject.mirrored)
        judge = load_or_train(
            subject.train, subject.labels, config, cache=subject.cache, precision=subject.precision,
            device=subject.device,
        )  # fmt: skip
        samples, real = ask(judge, images.to_uint8(subject.samples)), ask(judge, subject.test)
        network = f"a convolutional network trained on {len(subject.train):,} real images is > {CONFIDENT} sure"
        yield self.metric(
            "sample_confident_share", samples.confident_share, f"{len(subject.samples)} samples; {network}"
        )
        yield self.metric("real_confident_share", real.confident_share, f"{len(subject.test):,} test images; {network}")
        yield self.metric("class_share_min", min(samples.class_shares), f"{len(subject.samples)} samples; its verdict")
