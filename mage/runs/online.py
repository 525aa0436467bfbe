"""The online probe: k-NN and a closed-form linear probe while pre-training runs, on a few thousand labelled images."""

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mage import images
from mage.data.splits import TrainingData
from mage.evaluation.features import Features, NoClasses, check_labels
from mage.evaluation.knn import neighbour_accuracy
from mage.evaluation.linear_probe import ridge_probe
from mage.pipeline import Mage
from mage.recipes.schema import Recipe
from mage.runs.inputs import labelled_images
from mage.training.task import Watch

logger = logging.getLogger(__name__)
NEIGHBOURS = 20


def watch_tokens(recipe: Recipe, model: Mage, data: TrainingData) -> Watch | None:
    """Probe for a network on tokens; None without labels."""
    pairs = _labelled(recipe, data)
    if pairs is None:
        return None
    inputs = [(model.encode(images.to_float(pixels)).cpu(), labels) for pixels, labels in pairs]
    return _watch(inputs)


def watch_images(recipe: Recipe, data: TrainingData) -> Watch | None:
    """Probe for a network on pixels; None without labels."""
    pairs = _labelled(recipe, data)
    return None if pairs is None else _watch([(images.to_float(pixels), labels) for pixels, labels in pairs])


def _labelled(recipe: Recipe, data: TrainingData) -> list[tuple[Tensor, Tensor]] | None:
    """Images (uint8) and labels, `online_images` for training and held-out ones; None where no classes are known."""
    pairs = []
    plain = replace(recipe.data.transform, augmentation="none")
    for dataset, count in ((data.train, recipe.data.online_images), (data.validation, recipe.data.validation.images)):
        if dataset.labels is None:
            return None
        pairs.append(labelled_images(dataset, count, plain))
    try:
        check_labels(pairs[0][1], pairs[1][1])
    except NoClasses as reason:
        logger.warning("the representation is not measured during the training: %s", reason)
        return None
    return pairs


def _watch(inputs: list[tuple[Tensor, Tensor]]) -> Watch:
    def watch(network: Any) -> dict[str, float]:
        train, test = (_describe(network, *pair) for pair in inputs)
        votes = neighbour_accuracy(train, test, (min(NEIGHBOURS, len(train.labels)),), 0.07)
        return {
            "online/knn": next(iter(votes.values())),
            "online/linear": ridge_probe(train, test).accuracy,
        }

    return watch


def _describe(network: Any, inputs: Tensor, labels: Tensor) -> Features:
    device = next(network.parameters()).device
    parts = [network.features(part.to(device)).float().cpu() for part in inputs.split(256)]
    return Features(torch.cat(parts), labels)
