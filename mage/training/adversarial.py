"""The adversarial part of a tokenizer's training, with a discriminator that is trained together with it.

Two published forms: taming's (hinge loss, patches, weight balanced against the reconstruction's gradient) and that of
MaskGIT's tokenizer (non-saturating loss, one score per image, fixed weight, R1 penalty).

Letters: n images, c channels, H W pixels.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mage.device import autocast
from mage.tokenizers.discriminator import (
    DiscriminatorConfig,
    GanLoss,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from mage.training.optim import OptimConfig
from mage.training.task import Reading, TrainingWarning


@dataclass(frozen=True)
class AdversarialConfig:
    """Settings of the adversarial loss and its discriminator."""

    weight: float = 0.0
    """Weight of the adversarial loss; 0: no discriminator. taming: 0.8, adaptive. MaskGIT: 0.1."""
    loss: GanLoss = "hinge"
    """hinge: taming's. non_saturating: MaskGIT's."""
    adaptive: bool = True
    """Multiply the weight by the ratio of the two losses' gradient norms at the decoder's last layer."""
    start: float = 0.25
    """Share of the training after which the discriminator is used."""
    r1: float = 0.0
    """Weight of the R1 penalty, the squared gradient of the scores of real images. MaskGIT: 10."""
    r1_every: int = 1
    """Steps between R1 penalties, which are scaled up accordingly; 16 costs little."""
    base_learning_rate: float = 1e-4
    """The discriminator's learning rate for a batch of 256; AdamW without decay, constant."""
    betas: tuple[float, float] = (0.5, 0.9)
    """The discriminator's decay rates. MaskGIT: (0, 0.99)."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    """The discriminator's network."""

    def __post_init__(self) -> None:
        if min(self.weight, self.r1) < 0 or self.r1_every < 1 or not 0 <= self.start < 1:
            raise ValueError(
                "adversarial: weight and r1 must be 0 or more, r1_every at least 1, start in [0, 1), not "
                f"{self.weight}, {self.r1}, {self.r1_every} and {self.start}"
            )

    def optim(self, tokenizer: OptimConfig) -> OptimConfig:
        """The discriminator's optimizer, from the tokenizer's."""
        return replace(
            tokenizer,
            optimizer="adamw",
            base_learning_rate=self.base_learning_rate,
            end_learning_rate=1.0,
            warmup=0.0,
            betas=self.betas,
            weight_decay=0.0,
            clip=0.0,
            ema_decay=0.0,
        )


class Verdicts(NamedTuple):
    """The discriminator's outputs in one training pass."""

    loss: Float[Tensor, ""]
    right: Float[Tensor, ""]
    """Share of correct scores: positive for real images, negative for reconstructions."""
    largest: Float[Tensor, ""]
    """Largest absolute score."""
    r1: Float[Tensor, ""] | None


class DiscriminatorObjective(nn.Module):
    """The discriminator with its loss, as one module, so that DDP wraps a single forward pass."""

    def __init__(self, network: nn.Module, config: AdversarialConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, real: Float[Tensor, "n c H W"], fake: Float[Tensor, "n c H W"], *, penalize: bool) -> Verdicts:
        """Scores of both in one pass; `penalize` adds R1, in float32."""
        config = self.config
        of_real, of_fake = self.network(torch.cat([real, fake])).chunk(2)
        loss = discriminator_loss(of_real, of_fake, config.loss)
        penalty = r1_penalty(self.network, real) if penalize else None
        if penalty is not None:
            loss = loss + config.r1 * config.r1_every * penalty
        right = ((of_real > 0).float().mean() + (of_fake < 0).float().mean()) / 2
        largest = torch.cat([of_real, of_fake]).detach().abs().max()
        return Verdicts(loss, right, largest, None if penalty is None else penalty.detach())


class Adversary:
    """The discriminator and its losses in each step of a tokenizer's training."""

    def __init__(self, network: nn.Module, config: AdversarialConfig, *, steps: int, precision: str) -> None:
        self.module, self.config = DiscriminatorObjective(network, config), config
        self.first, self._precision = round(config.start * steps), precision
        self.started = False

    def takes_part(self, step: int) -> bool:
        """Whether the discriminator is used in this step: from the share `start` of the steps on, and then always."""
        self.started = self.started or step >= self.first
        return self.started

    def push(
        self, reconstruction: Float[Tensor, "n c H W"], loss: Float[Tensor, ""], last: Tensor
    ) -> tuple[Float[Tensor, ""], dict[str, Reading]]:
        """The tokenizer's adversarial loss, added to `loss`; `last`: the decoder's last weights."""
        # Not through the DDP wrapper: the discriminator's own gradients are not wanted here.
        with _frozen(self.module), autocast(self._precision, reconstruction.device):
            adversarial = generator_loss(self.module.network(reconstruction), self.config.loss)
        readings = {"adversarial": Reading(adversarial)}
        weight = torch.full_like(adversarial, self.config.weight)  # filled there, not copied
        if self.config.adaptive:
            weight = weight * adaptive_weight(loss, adversarial, last)
            readings["adversarial_weight"] = Reading(weight)
        return weight * adversarial, readings

    def learn(
        self, wrapped: nn.Module, real: Float[Tensor, "n c H W"], fake: Float[Tensor, "n c H W"], *, step: int
    ) -> tuple[Float[Tensor, ""], dict[str, Reading]]:
        """The discriminator's loss; `wrapped` is its module as the training loop wrapped it."""
        penalize = self.config.r1 > 0 and (step - self.first) % self.config.r1_every == 0
        verdicts: Verdicts = wrapped(real, fake.detach(), penalize=penalize)
        readings = {
            "discriminator/right": Reading(verdicts.right),
            "discriminator/largest": Reading(verdicts.largest, "max"),
        }
        if verdicts.r1 is not None:
            readings["discriminator/r1"] = Reading(verdicts.r1 * self.config.r1_every)
        return verdicts.loss, readings


def warnings(metrics: Mapping[str, float]) -> Iterator[TrainingWarning]:
    """Problems of adversarial training that the metrics of the last steps show."""
    if metrics.get("discriminator/right", 0.0) > 0.98:
        yield TrainingWarning(
            "discriminator_wins",
            f"the discriminator classifies {metrics['discriminator/right']:.1%} of the images correctly, so that the "
            "tokenizer learns nothing from it: lower adversarial.base_learning_rate, or set adversarial.r1",
        )
    if metrics.get("discriminator/largest", 0.0) > 100:
        yield TrainingWarning(
            "discriminator_diverges",
            f"the discriminator diverges, its scores reach {metrics['discriminator/largest']:.3g}: lower "
            "adversarial.base_learning_rate, or set adversarial.r1",
        )
    if metrics.get("adversarial_weight", 0.0) > 1e3:
        yield TrainingWarning(
            "adversarial_gradient_vanishes",
            f"the adversarial loss is scaled by {metrics['adversarial_weight']:.3g}, its gradient has vanished: lower "
            "adversarial.weight, or set adversarial.adaptive=false",
        )


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in module.parameters():
            parameter.requires_grad_(True)
