"""Class conditions for CIFAR-10: from the start, or by a new decoder on a trained model; labels or clusters.

The last two freeze the encoder, so its features do not change (paper, section 4.2):
mage pretrain --recipe cifar10-clusters --tokenizer RUN --init-from RUN --out NEW
"""

from dataclasses import replace

from mage.masking import MaskRatioConfig
from mage.recipes.schema import Recipe
from mage.recipes.small import cifar10
from mage.training.conditions import ConditionConfig
from mage.training.methods import MAGEMethod


def _conditioned(conditions: ConditionConfig) -> MAGEMethod:
    return MAGEMethod(masking=MaskRatioConfig(per_image=True), conditions=conditions)


def cifar10_classes() -> Recipe:
    """Trained with labels from the start; the class is the encoder's first word."""
    base = cifar10()
    return replace(
        base,
        name="cifar10-classes",
        method=_conditioned(ConditionConfig(source="labels")),
        sampling=replace(base.sampling, guidance=2.0),
    )


def cifar10_labels() -> Recipe:
    """A decoder conditioned on labels, on the frozen encoder of --init-from."""
    base = cifar10()
    return replace(
        base,
        name="cifar10-labels",
        model=replace(base.model, class_input="decoder"),
        pretraining=replace(base.pretraining, steps=1500),
        method=_conditioned(ConditionConfig(source="labels", freeze_encoder=True)),
        sampling=replace(base.sampling, guidance=2.0),
    )


def cifar10_clusters() -> Recipe:
    """The same without labels: the classes are k-means clusters of the model's own features."""
    base = cifar10_labels()
    return replace(
        base,
        name="cifar10-clusters",
        method=_conditioned(ConditionConfig(source="clusters", clusters=64, freeze_encoder=True)),
        sampling=replace(base.sampling, guidance=1.0),
    )
