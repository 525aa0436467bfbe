"""Accuracy under attack: FGSM and PGD with several budgets, l-inf and l2.

For PGD an image counts as correct only if it withstands every attack of that budget: through the classifier, on the
tokenizer's latent if there is a tokenizer, and FGSM.

Letters: n images, c channels, h w pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mage import images
from mage.data.datasets import evenly
from mage.data.loaders import evaluation_batches
from mage.data.transforms import build_transform
from mage.evaluation.attacks import AttackConfig, AttackResult, Norm, attack_accuracy, fgsm
from mage.evaluation.differentiable import differentiable_scorer, latent_of
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.evaluation.representation import REPRESENTATION_PROTOCOLS, Representation, RepresentationProtocol


def _attack(title: str, budget: str) -> Description:
    explanation = f"Accuracy on images changed so as to mislead the classifier; {budget}."
    return Description(title, explanation, "share", "higher")


_LINF, _L2 = "no number changes by more than {budget}/255", "the change has at most the norm {budget}"


@REPRESENTATION_PROTOCOLS.register("attacks")
@dataclass(frozen=True)
class Attacks(RepresentationProtocol):
    """FGSM and PGD against the classifier, including the tokenizer."""

    test_images: int = 500
    """Largest number of attacked test images."""
    steps: int = 10
    """Steps of PGD."""
    linf_budgets: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Largest change of a pixel, in 255ths."""
    l2_budgets: tuple[float, ...] = (0.1, 0.25, 0.5)
    """Largest Euclidean norm of the change, images in [0, 1]."""

    uses_features: ClassVar = False
    metrics: ClassVar = {
        "fgsm_linf_{budget}_accuracy": _attack("FGSM l\N{INFINITY} {budget}", _LINF),
        "fgsm_l2_{budget}_accuracy": _attack("FGSM l2 {budget}", _L2),
        "pgd_linf_{budget}_accuracy": _attack("PGD l\N{INFINITY} {budget}", _LINF),
        "pgd_l2_{budget}_accuracy": _attack("PGD l2 {budget}", _L2),
        "attack_clean_accuracy": Description(
            "Not attacked", "Accuracy on the images that were attacked, before they were.", "share"
        ),
    }

    def measure(self, subject: Representation) -> Iterator[Metric]:
        """Accuracy under FGSM and PGD for each norm and budget; accuracy under each single attack in the details."""
        if not self.linf_budgets and not self.l2_budgets:
            raise NotMeasured("attacks: no budget is given")
        pixels, labels = self._attacked_images(subject)
        score = differentiable_scorer(subject.model, subject.head, pool=subject.pool)
        latent, clean = latent_of(subject.model), 0.0
        reach = "through the classifier and on the latent" if latent is not None else "through the classifier"

        def attacked(config: AttackConfig, *, on_latent: bool = False) -> AttackResult:
            return attack_accuracy(
                score, pixels, labels, config, latent=latent if on_latent else None, seed=subject.seed
            )

        for norm, budget, shown in self._budgets():
            pgd = AttackConfig(norm=norm, budget=budget, steps=self.steps)
            single, on_classifier = attacked(fgsm(norm, budget)), attacked(pgd)
            clean, survivors = on_classifier.clean, single.survivors & on_classifier.survivors
            details = {"norm": norm, "budget": budget, "clean": clean, "fgsm": single.attacked}
            details["pgd_straight_through"] = on_classifier.attacked
            if latent is not None:
                on_latents = attacked(pgd, on_latent=True)
                details["pgd_latent"], survivors = on_latents.attacked, survivors & on_latents.survivors
            unit = "/255" if norm == "linf" else ""
            protocol = f"{subject.classifier_name}; {norm} {shown}{unit}, {len(labels):,} test images"
            yield self.metric(f"fgsm_{norm}_{shown}_accuracy", single.attacked, protocol)
            yield self.metric(
                f"pgd_{norm}_{shown}_accuracy", float(survivors.double().mean()),
                f"{protocol}, {self.steps} steps, {reach}, and FGSM", **details,
            )  # fmt: skip
        yield self.metric("attack_clean_accuracy", clean, f"{subject.classifier_name}; the same images, not attacked")

    def _attacked_images(self, subject: Representation) -> tuple[Tensor, Tensor]:
        dataset = evenly(subject.test_images, self.test_images)
        batches = list(evaluation_batches(dataset, build_transform(subject.transform)))
        pixels, labels = (torch.cat([batch[name] for batch in batches]) for name in ("images", "labels"))
        return images.to_float(pixels).to(subject.model.device), labels

    def _budgets(self) -> Iterator[tuple[Norm, float, str]]:
        """Norm, budget for images in [0, 1], and the budget as it is written in names of metrics."""
        yield from (("linf", budget / 255, f"{budget:g}") for budget in self.linf_budgets)
        yield from (("l2", budget, f"{budget:g}") for budget in self.l2_budgets)
