"""Adversarial attacks: the smallest change of an image that makes a classifier wrong, FGSM and PGD, l-inf and l2.

FGSM is one step along the gradient (Goodfellow et al. 2015), PGD many with a projection after each (Madry et al. 2018).
A tokenizer picks the nearest word, which has no gradient: it is passed straight through a softmax over the distances
(`mage.evaluation.differentiable`). That a gradient is missing must not be taken for robustness (Athalye et al. 2018);
so a second attack needs no words: it drives the tokenizer's continuous latent away from where it was.

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
"""Images -> one number each that the attack makes large."""


@dataclass(frozen=True)
class AttackConfig:
    """Budget and length of an attack."""

    norm: Norm = "linf"
    """linf: no number of an image changes by more than the budget. l2: the Euclidean norm of the change is bounded."""
    budget: float = 2 / 255
    """Largest norm of the change, images in [0, 1]."""
    steps: int = 10
    """Steps; 1 without a random start is FGSM."""
    random_start: bool = True
    """Begin at a random point within the budget."""
    step_share: float = 0.25
    """Length of a step, as a share of the budget; a single step takes all of it."""

    def __post_init__(self) -> None:
        if self.budget <= 0 or self.steps < 1 or self.step_share <= 0:
            raise ValueError("an attack needs a positive budget, step_share and number of steps")


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
    """Change each image within the budget so that its loss grows; stays in [0, 1].

    generators: one per image, for its random start, which then does not depend on the images beside it.
    done: images that it says are finished keep the change that did it.
    """
    change = torch.zeros_like(images)
    if config.random_start:
        drawn = [torch.rand(image.shape, generator=own) for image, own in zip(images, generators, strict=True)]
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
    """The step of norm 1 that gains most: signs for linf, the unit vector for l2."""
    if norm == "linf":
        return gradient.sign()
    return gradient / _length(gradient).clamp(min=1e-12)


def project(change: Float[Tensor, "n c h w"], config: AttackConfig) -> Float[Tensor, "n c h w"]:
    """The nearest change within the budget."""
    if config.norm == "linf":
        return change.clamp(-config.budget, config.budget)
    return change * (config.budget / _length(change).clamp(min=1e-12)).clamp(max=1)


def change_norm(change: Float[Tensor, "n c h w"], norm: Norm) -> Float[Tensor, " n"]:
    """Norm of each image's change."""
    return change.abs().amax(dim=(1, 2, 3)) if norm == "linf" else _length(change).flatten()


def _length(x: Tensor) -> Tensor:
    length: Tensor = x.flatten(1).norm(dim=1)
    return length.view(-1, 1, 1, 1)


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Accuracies from 0 to 1 on the same images."""

    clean: float
    attacked: float
    largest_norm: float
    """Of all changes; at most the budget."""
    survivors: Bool[Tensor, " n"]
    """The images that are right before and after."""

    @property
    def success(self) -> float:
        """Share of the images classified rightly before that are not any more."""
        return 1 - self.attacked / self.clean if self.clean else 0.0


def attack_accuracy(
    classify: Scorer,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    config: AttackConfig,
    *,
    latent: Callable[[Tensor], Tensor] | None = None,
    exact: Scorer | None = None,
    batch_size: int = 100,
    seed: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> AttackResult:
    """Accuracy under attack. An image counts as right only if it is right before and after.

    Random starts follow from the seed and an image's place in `images`, whatever the batch size.
    latent: attack this output instead, driving it away from where it was; labels are then not used in the attack.
    exact: what judges; default `classify`. Give the classifier itself where `classify` only stands in for it.
    """
    exact = exact or classify
    clean, largest, survivors = 0, 0.0, []
    for chosen in torch.arange(len(images)).split(batch_size):
        part, label = images[chosen], labels[chosen].to(images.device)
        generators = [rng.generator(seed, "attack", number) for number in chosen.tolist()]
        right = _right(exact, part, label)
        if latent is None:
            loss, done = _misclassify(classify, label), _wrong(exact, label)
        else:
            loss, done = _drive_away(latent, part), _wrong(exact, label)
        changed = perturb(loss, part, config, generators, done=done)
        clean += int(right.sum())
        survivors.append((right & _right(exact, changed, label)).cpu())
        largest = max(largest, float(change_norm(changed - part, config.norm).max()))
        if on_images is not None:
            on_images(len(part))
    left = torch.cat(survivors)
    return AttackResult(clean / len(images), float(left.double().mean()), largest, left)


def _misclassify(classify: Scorer, labels: Tensor) -> Loss:
    return lambda attacked: functional.cross_entropy(classify(attacked), labels, reduction="none")


def _wrong(exact: Scorer, labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda attacked: ~_right(exact, attacked, labels)


def _drive_away(latent: Callable[[Tensor], Tensor], images: Tensor) -> Loss:
    with torch.no_grad():
        origin = latent(images).float()
    # at the start the distance is zero and has no gradient: a random start is needed, which AttackConfig has
    return lambda attacked: (latent(attacked).float() - origin).flatten(1).square().sum(dim=1)


@torch.no_grad()
def _right(classify: Scorer, images: Tensor, labels: Tensor) -> Tensor:
    return classify(images).argmax(dim=1) == labels
