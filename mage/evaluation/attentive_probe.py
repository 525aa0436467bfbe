"""Attentive probe: a learned query attends to a frozen encoder's tokens, and a linear layer classifies the result.

A mean over tokens loses information that is at few positions; this probe can select them (Bardes et al. 2024 for
V-JEPA, Chen et al. 2022 for CAE). It has more parameters than a linear probe and is not comparable with it.

Letters: n images, l tokens, d width, k classes.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage import images, rng
from mage.data.datasets import ImageDataset, evenly
from mage.data.loaders import evaluation_batches
from mage.data.transforms import build_transform
from mage.evaluation.classification import ProbeResult
from mage.evaluation.metric import Description, Metric
from mage.evaluation.representation import (
    REPRESENTATION_PROTOCOLS,
    Representation,
    RepresentationProtocol,
)


@dataclass(frozen=True)
class AttentiveConfig:
    """Training of the probe."""

    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 256
    """Images per step; cut to a quarter of a small training set."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW; falls to 0 as a cosine."""
    weight_decay: float = 0.05
    """Weight decay of the matrices."""
    heads: int = 4
    """Attention heads of the query; cut to a divisor of the width."""


@dataclass(frozen=True)
class TokenFeatures:
    """Tokens of a frozen encoder and labels of the same images; float16, to save memory."""

    rows: Float[Tensor, "n l d"]
    labels: Int[Tensor, " n"] = field(repr=False)


class AttentiveHead(nn.Module):
    """Tokens -> class scores: normalisation, attention with one learned query, linear layer."""

    def __init__(self, width: int, num_classes: int, heads: int) -> None:
        super().__init__()
        self.heads = math.gcd(width, heads)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.zeros(width))
        self.keys_values = nn.Linear(width, 2 * width)
        self.out_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.query, std=0.02)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rows: Float[Tensor, "n l d"]) -> Float[Tensor, "n k"]:
        """Class scores."""
        keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.keys_values(self.norm(rows)).chunk(2, dim=2)
        )
        query = self.query.view(self.heads, 1, -1).expand(len(rows), -1, -1, -1)
        attended = functional.scaled_dot_product_attention(query.to(keys.dtype), keys, values)
        scores: Tensor = self.head(self.out_norm(attended.flatten(1)))
        return scores


def probe_batches(
    train: TokenFeatures,
    test: Iterable[TokenFeatures],
    *,
    config: AttentiveConfig | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ProbeResult:
    """Accuracy on `test` of a head trained on `train`.

    test: in batches, each of which is taken after the training and kept no longer than needed. device: of the head.
    """
    config = config or AttentiveConfig()
    count, classes = len(train.labels), int(train.labels.max()) + 1
    batch_size = min(config.batch_size, max(1, count // 4))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.stream_seed(seed, "attentive weights"))
        head = AttentiveHead(train.rows.shape[2], classes, config.heads).to(device)
    groups = [
        {"params": [p for p in head.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in head.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
    steps = config.epochs * (count // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(config.epochs):
        order = torch.randperm(count, generator=rng.generator(seed, "attentive order", epoch))
        for chosen in order[: count // batch_size * batch_size].split(batch_size):
            rows, labels = train.rows[chosen].to(device), train.labels[chosen].to(device)
            loss = functional.cross_entropy(head(rows.float()), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    scores, truth = [], []
    for batch in test:
        with torch.inference_mode():
            scores.append(head(batch.rows.to(device).float()).cpu())
        truth.append(batch.labels)
    settings = {"epochs": config.epochs, "batch_size": batch_size, "learning_rate": config.learning_rate, "seed": seed}
    return ProbeResult.of(torch.cat(scores), torch.cat(truth), f"attentive_{config.epochs}ep", settings)


@REPRESENTATION_PROTOCOLS.register("attentive")
@dataclass(frozen=True)
class AttentiveProbe(RepresentationProtocol):
    """The probe on a model's tokens."""

    training_images: int = 10_000
    """Largest number of training images; their tokens are kept in memory."""

    uses_features: ClassVar = False
    metrics: ClassVar = {
        "attentive_probe_accuracy": Description(
            "Attentive probe",
            "Test accuracy of a classifier that may choose at which tokens of the frozen encoder it looks.",
            "share",
            "higher",
            bar=True,
        )
    }

    def measure(self, subject: Representation) -> Iterator[Metric]:
        """Accuracy on the test images."""
        train = _kept(subject, evenly(subject.train_images, self.training_images))
        tests = _tokens(subject, subject.test_images)
        probe = probe_batches(train, tests, seed=subject.seed, device=subject.model.device)
        protocol = f"{probe.protocol}, {len(train.labels):,} training images"
        interval = list(probe.confusion.interval)
        yield self.metric("attentive_probe_accuracy", probe.accuracy, protocol, interval=interval)


def _kept(subject: Representation, dataset: ImageDataset) -> TokenFeatures:
    """Tokens and labels of a whole data set, in memory once."""
    rows, labels, end = torch.empty(0), torch.empty(0, dtype=torch.long), 0
    for part in _tokens(subject, dataset):
        if not end:
            rows, labels = part.rows.new_empty(len(dataset), *part.rows.shape[1:]), labels.new_empty(len(dataset))
        start, end = end, end + len(part.labels)
        rows[start:end], labels[start:end] = part.rows, part.labels
    return TokenFeatures(rows[:end], labels[:end])


def _tokens(subject: Representation, dataset: ImageDataset) -> Iterator[TokenFeatures]:
    """Tokens and labels of a data set, batch by batch."""
    for batch in evaluation_batches(dataset, build_transform(subject.transform), batch_size=subject.batch_size):
        tokens = subject.model.forward_intermediates(images.to_float(batch["images"]), 1, output_fmt="NLC")[0]
        yield TokenFeatures(tokens.to("cpu", torch.float16), batch["labels"])
