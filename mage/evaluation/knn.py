"""k nearest neighbours on features: a classifier with nothing to train (weighted as in Wu et al. 2018).

Letters: n images, d feature width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mage import rng
from mage.evaluation.features import Features, check_pair

NEIGHBOURS = (1, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class NeighboursResult:
    """Accuracy from 0 to 1; `k` was chosen on held-out training images, never on the test images."""

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
    """Weighted k-NN by cosine similarity, each neighbour counting exp(similarity / temperature)."""
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
    found = neighbour_accuracy(train, test, usable, temperature)
    return NeighboursResult(found[best], best, found, temperature)


def neighbour_accuracy(
    train: Features, test: Features, neighbours: tuple[int, ...], temperature: float | None
) -> dict[int, float]:
    """Accuracy for each k; temperature None gives every neighbour one vote."""
    predictions = neighbour_predictions(train, test.features, neighbours, temperature)
    return {k: float((predicted == test.labels).double().mean()) for k, predicted in predictions.items()}


def neighbour_predictions(
    train: Features, queries: Float[Tensor, "n d"], neighbours: tuple[int, ...], temperature: float | None
) -> dict[int, Int[Tensor, " n"]]:
    """Predicted class of each query for each k, in chunks that fit into memory."""
    classes = int(train.labels.max()) + 1
    bank = functional.normalize(train.features, dim=1)
    found: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    for chunk in functional.normalize(queries, dim=1).split(1024):
        similarity, index = (chunk @ bank.T).topk(max(neighbours), dim=1)
        weight = torch.ones_like(similarity) if temperature is None else (similarity / temperature).exp()
        votes = functional.one_hot(train.labels[index], classes) * weight[..., None]
        for k in neighbours:
            found[k].append(votes[:, :k].sum(dim=1).argmax(dim=1))
    return {k: torch.cat(parts) for k, parts in found.items()}
