"""Adversarial attacks: small changes of an image that mislead a classifier, by FGSM and PGD, l-inf and l2.

FGSM is one step along the gradient (Goodfellow et al. 2015), PGD several with projections (Madry et al. 2018). A
tokenizer takes the nearest code, which has no gradient: a straight-through softmax over the distances is used
(`mage.evaluation.differentiable`). A missing gradient must not be mistaken for robustness (Athalye et al. 2018);
therefore a second attack avoids codes: it moves the tokenizer's continuous latent away from that of the image.

Letters: n images, c channels, h w pixels, k classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from mage import rng
from mage.evaluation.classification import Scorer

Norm = Literal["linf", "l2"]
Loss = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, " n"]]
"""Images -> loss of each, which the attack increases."""


@dataclass(frozen=True)
class AttackConfig:
    """Budget and length of an attack."""

    norm: Norm = "linf"
    """linf: largest change of a pixel value. l2: Euclidean norm of the change."""
    budget: float = 2 / 255
    """Largest norm of the change, images in [0, 1]."""
    steps: int = 10
    """Steps; 1 without a random start is FGSM."""
    random_start: bool = True
    """Start at a random point within the budget."""
    step_share: float = 0.25
    """Length of a step, as a share of the budget; a single step takes all of it."""

    def __post_init__(self) -> None:
        if self.budget <= 0 or self.steps < 1 or self.step_share <= 0:
            raise ValueError(
                f"an attack needs a positive budget, steps and step_share, not {self.budget}, {self.steps} and "
                f"{self.step_share}"
            )


def fgsm(norm: Norm, budget: float) -> AttackConfig:
    """The fast gradient sign method: one step of the whole budget."""
    return AttackConfig(norm=norm, budget=budget, steps=1, random_start=False, step_share=1.0)


def perturb(
    loss: Loss,
    images: Float[Tensor, "n c h w"],
    config: AttackConfig,
    generators: Sequence[torch.Generator],
    *,
    done: Callable[[Float[Tensor, "n c h w"]], Bool[Tensor, " n"]] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Change each image within the budget so that its loss grows; images stay in [0, 1].

    generators: one per image, for its random start, so that it does not depend on the batch.
    done: images -> whether each is finished, and keeps its current change.
    """
    change = torch.zeros_like(images)
    if config.random_start:
        drawn = [
            torch.rand(image.shape, generator=generator) for image, generator in zip(images, generators, strict=True)
        ]
        draw = torch.stack(drawn).to(images) * 2 - 1
        change = project(draw * config.budget, config)
        change = (images + change).clamp(0, 1) - images
    for _ in range(config.steps):
        with torch.enable_grad():
            attacked = (images + change).detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(loss(attacked).sum(), attacked)
        moved = change + config.step_share * config.budget * direction(gradient, config.norm)
        moved = (images + project(moved, config)).clamp(0, 1) - images
        change = moved if done is None else torch.where(done(images + change)[:, None, None, None], change, moved)
    return images + change


def direction(gradient: Float[Tensor, "n c h w"], norm: Norm) -> Float[Tensor, "n c h w"]:
    """The step of norm 1 with the largest gain: signs for linf, the unit vector for l2."""
    if norm == "linf":
        return gradient.sign()
    return gradient / _length(gradient).clamp(min=1e-12)


def project(change: Float[Tensor, "n c h w"], config: AttackConfig) -> Float[Tensor, "n c h w"]:
    """The nearest change within the budget."""
    if config.norm == "linf":
        return change.clamp(-config.budget, config.budget)
    return change * (config.budget / _length(change).clamp(min=1e-12)).clamp(max=1)


def _length(x: Tensor) -> Tensor:
    length: Tensor = x.flatten(1).norm(dim=1)
    return length.view(-1, 1, 1, 1)


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Accuracies from 0 to 1 on the same images."""

    clean: float
    attacked: float
    survivors: Bool[Tensor, " n"]
    """Images that are classified correctly before and after the attack."""


def attack_accuracy(
    classify: Scorer,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    config: AttackConfig,
    *,
    latent: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 100,
    seed: int = 0,
) -> AttackResult:
    """Accuracy under attack. An image counts as correct only if it is classified correctly before and after.

    Random starts depend on the seed and an image's index in `images`, not on the batch size.
    latent: images -> latent; move this away from its value instead of using the labels.
    """
    clean, survivors = 0, []
    for chosen in torch.arange(len(images)).split(batch_size):
        part, label = images[chosen], labels[chosen].to(images.device)
        generators = [rng.generator(seed, "attack", number) for number in chosen.tolist()]
        right = _right(classify, part, label)
        loss = _misclassify(classify, label) if latent is None else _drive_away(latent, part)
        changed = perturb(loss, part, config, generators, done=_wrong(classify, label))
        clean += int(right.sum())
        survivors.append((right & _right(classify, changed, label)).cpu())
    left = torch.cat(survivors)
    return AttackResult(clean / len(images), float(left.double().mean()), left)


def _misclassify(classify: Scorer, labels: Tensor) -> Loss:
    return lambda attacked: functional.cross_entropy(classify(attacked), labels, reduction="none")


def _wrong(classify: Scorer, labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda attacked: ~_right(classify, attacked, labels)


def _drive_away(latent: Callable[[Tensor], Tensor], images: Tensor) -> Loss:
    with torch.no_grad():
        origin = latent(images).float()
    # the distance of an unchanged image is 0 and has no gradient: a random start is necessary
    return lambda attacked: (latent(attacked).float() - origin).flatten(1).square().sum(dim=1)


@torch.no_grad()
def _right(classify: Scorer, images: Tensor, labels: Tensor) -> Tensor:
    return classify(images).argmax(dim=1) == labels
