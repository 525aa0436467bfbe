"""k-nearest-neighbour classification of features, which needs no training (weighted as in Wu et al. 2018).

Letters: n images, d feature width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mage import rng
from mage.data.transforms import cut_in_words
from mage.evaluation.confusion import wilson_interval
from mage.evaluation.features import Features, check_pair
from mage.evaluation.metric import Description, Metric
from mage.evaluation.representation import REPRESENTATION_PROTOCOLS, Representation, RepresentationProtocol

NEIGHBOURS = (1, 5, 10, 20, 50, 100, 200)
SIMILARITIES_AT_ONCE = 2**25
"""Entries of a chunk of the similarity matrix: 128 MB in float32."""


@dataclass(frozen=True)
class NeighboursResult:
    """Accuracy from 0 to 1; `k` is chosen on held-out training images."""

    accuracy: float
    k: int
    accuracy_per_k: dict[int, float]
    temperature: float


def knn(
    train: Features,
    test: Features,
    *,
    neighbours: tuple[int, ...] = NEIGHBOURS,
    temperature: float = 0.07,
    seed: int = 0,
) -> NeighboursResult:
    """Weighted k-NN by cosine similarity; the vote of each neighbour is exp(similarity / temperature).

    Values of k that are too large for the training set are left out. Raises ValueError as `check_pair`.
    """
    check_pair(train, test)
    usable = tuple(k for k in neighbours if k <= len(train.labels) * 9 // 10) or (1,)
    order = torch.randperm(len(train.labels), generator=rng.generator(seed, "knn split"))
    held, rest = order[: max(1, len(order) // 10)], order[max(1, len(order) // 10) :]
    chosen = neighbour_accuracy(
        Features(train.features[rest], train.labels[rest]),
        Features(train.features[held], train.labels[held]),
        usable,
        temperature,
    )
    best = max(usable, key=lambda k: chosen[k])
    accuracy = neighbour_accuracy(train, test, usable, temperature)
    return NeighboursResult(accuracy[best], best, accuracy, temperature)


def neighbour_accuracy(
    train: Features, test: Features, neighbours: tuple[int, ...], temperature: float | None
) -> dict[int, float]:
    """Accuracy for each k; with temperature None every neighbour has one vote."""
    predictions = neighbour_predictions(train, test.features, neighbours, temperature)
    return {k: float((predicted == test.labels).double().mean()) for k, predicted in predictions.items()}


def neighbour_predictions(
    train: Features, queries: Float[Tensor, "n d"], neighbours: tuple[int, ...], temperature: float | None
) -> dict[int, Int[Tensor, " n"]]:
    """Predicted class of each query for each k, in chunks of queries. Raises ValueError for an impossible k."""
    if not neighbours or min(neighbours) < 1 or max(neighbours) > len(train.labels):
        raise ValueError(f"k must lie between 1 and the {len(train.labels)} training images, not {neighbours}")
    classes = int(train.labels.max()) + 1
    train_unit = functional.normalize(train.features.float(), dim=1)
    predictions: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    chunk_size = max(1, SIMILARITIES_AT_ONCE // len(train_unit))
    for chunk in torch.split(functional.normalize(queries.float(), dim=1), chunk_size):
        with torch.autocast(chunk.device.type, enabled=False):
            similarity, index = (chunk @ train_unit.T).topk(max(neighbours), dim=1)
        weight = torch.ones_like(similarity)
        if temperature is not None:  # relative to the nearest, because exp(100) is no number of 32 bits
            weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes, counted = weight.new_zeros(len(chunk), classes), 0
        for k in sorted(set(neighbours)):  # the votes of a smaller k are part of those of a larger one
            votes.scatter_add_(1, train.labels[index[:, counted:k]], weight[:, counted:k])
            predictions[k].append(votes.argmax(dim=1))
            counted = k
    return {k: torch.cat(parts) for k, parts in predictions.items()}


@REPRESENTATION_PROTOCOLS.register("knn")
@dataclass(frozen=True)
class NearestNeighbours(RepresentationProtocol):
    """k-NN on the features."""

    metrics: ClassVar = {
        "knn_accuracy": Description(
            "k-NN",
            "Test accuracy of a vote among the nearest training images in feature space: nothing is trained.",
            "share",
            "higher",
            bar=True,
        )
    }

    def measure(self, subject: Representation) -> Iterator[Metric]:
        """Accuracy of the k that was chosen on held-out training images."""
        votes = knn(subject.train, subject.test, seed=subject.seed)
        protocol = f"k = {votes.k} chosen on training images, weighted cosine, temperature {votes.temperature:g}"
        protocol += f", {cut_in_words(subject.transform)}"
        count = len(subject.test.labels)
        interval = list(wilson_interval(round(votes.accuracy * count), count))
        yield self.metric("knn_accuracy", votes.accuracy, protocol, interval=interval)
