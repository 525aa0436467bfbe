"""Linear classifiers that are solved, not trained: logistic regression and least squares on standardised features.

A head is a module that scores new features and passes gradients to the images.

Letters: n images, d feature width, k classes.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from mage import rng
from mage.evaluation.features import Features

Solver = Literal["lbfgs", "ridge"]
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse L2 penalties that `lbfgs` chooses from; of equally good ones it takes the strongest penalty."""
RIDGE_PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Penalties that `ridge` chooses from, as shares of the mean eigenvalue of the features' scatter."""

PRIOR_IMAGES = 30
"""Weight of the mean variance in the variance of each feature, as a number of images."""


class LinearHead(nn.Module):
    """Features -> class scores: standardisation with the statistics of the training features, then a linear layer."""

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        mean: Float[Tensor, " d"],
        deviation: Float[Tensor, " d"],
        weight: Float[Tensor, "k d"],
        bias: Float[Tensor, " k"],
    ) -> None:
        super().__init__()
        for name, value in dict(mean=mean, deviation=deviation, weight=weight, bias=bias).items():
            self.register_buffer(name, value.float())

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Class scores; minus infinity for classes without training images."""
        return functional.linear((features.float() - self.mean) / self.deviation, self.weight, self.bias)


@dataclass(frozen=True)
class FittedHead:
    """A head with the choice of its penalty."""

    head: LinearHead
    settings: dict[str, Any] = field(default_factory=dict)


def fit_head(train: Features, *, solver: Solver = "lbfgs", seed: int = 0) -> FittedHead:
    """Solve for a linear classifier of `train`."""
    return fit_lbfgs(train, seed=seed) if solver == "lbfgs" else fit_ridge(train, seed=seed)


def fit_lbfgs(train: Features, *, seed: int = 0) -> FittedHead:
    """Multinomial logistic regression; the penalty is chosen by accuracy on held-out training images.

    Below 10,000 images, three-fold cross-validation; above, a tenth of the images is held out.
    """
    mean, deviation = _scale(train)
    x, y = ((train.features - mean) / deviation).numpy(), train.labels.numpy()
    order = torch.randperm(len(y), generator=rng.generator(seed, "probe split")).numpy()
    parts = np.array_split(order, 3) if 3 <= len(y) < 10_000 else [order[: max(1, len(y) // 10)]]
    splits = [(np.setdiff1d(order, held), held) for held in parts]
    splits = [(rest, held) for rest, held in splits if len(np.unique(y[rest])) > 1]
    with warnings.catch_warnings():  # solutions that do not converge have lower accuracy and are not chosen
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Each penalty starts from the solution of the one before: the same optimum in a fraction of the steps.
        models = [LogisticRegression(max_iter=1000, warm_start=True) for _ in splits]
        best, best_accuracy = STRENGTHS[0], -1.0
        for strength in STRENGTHS if splits else ():
            right = 0.0
            for model, (rest, held) in zip(models, splits, strict=True):
                right += model.set_params(C=strength).fit(x[rest], y[rest]).score(x[held], y[held]) * len(held)
            accuracy = right / sum(len(held) for _, held in splits)
            if accuracy > best_accuracy:
                best, best_accuracy = strength, accuracy
            if accuracy < best_accuracy - 0.002:
                break  # weaker penalties overfit even more, and take the longest to solve
        model = LogisticRegression(C=best, max_iter=1000).fit(x, y)
    weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if len(model.classes_) == 2:  # scikit-learn keeps the odds of the second class only
        weight, bias = torch.cat([weight * 0, weight]), torch.cat([bias * 0, bias])
    classes = int(y.max()) + 1
    weights, biases = weight.new_zeros(classes, weight.shape[1]), weight.new_full((classes,), -math.inf)
    seen = torch.from_numpy(model.classes_)
    weights[seen], biases[seen] = weight, bias
    settings = {"inverse_penalty": best, "held_out_accuracy": max(0.0, best_accuracy), "seed": seed}
    return FittedHead(LinearHead(mean, deviation, weights, biases), settings)


def fit_ridge(train: Features, *, seed: int = 0) -> FittedHead:
    """Least squares with an intercept from features to class indicators, in closed form.

    The penalty is chosen on a held-out tenth of the training images; one eigendecomposition serves all penalties.
    """
    mean, deviation = _scale(train)
    x = ((train.features - mean) / deviation).double()
    target = functional.one_hot(train.labels, int(train.labels.max()) + 1).double()
    order = torch.randperm(len(x), generator=rng.generator(seed, "probe split"))
    held, rest = order[: max(1, len(order) // 10)], order[max(1, len(order) // 10) :]
    held_out_accuracy = {}
    for penalty, (weight, bias) in _ridge_solutions(x[rest], target[rest]).items():
        right = (x[held] @ weight + bias).argmax(dim=1) == train.labels[held]
        held_out_accuracy[penalty] = float(right.double().mean())
    # of equally good penalties the strongest
    best = max(reversed(held_out_accuracy), key=lambda penalty: held_out_accuracy[penalty])
    weight, bias = _ridge_solutions(x, target)[best]
    bias = bias.masked_fill(~target.bool().any(dim=0), -math.inf)
    settings = {"penalty": best, "held_out_accuracy": held_out_accuracy[best], "seed": seed}
    return FittedHead(LinearHead(mean, deviation, weight.T, bias), settings)


def _scale(train: Features) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature; for few images, deviations are shrunk towards the average one."""
    variance, count = train.features.var(dim=0), len(train.features)
    variance = (count * variance + PRIOR_IMAGES * variance.mean()) / (count + PRIOR_IMAGES)
    return train.features.mean(dim=0), variance.sqrt().clamp(min=1e-6)


def _ridge_solutions(x: Float[Tensor, "n d"], target: Float[Tensor, "n k"]) -> dict[float, tuple[Tensor, Tensor]]:
    """Weights (d, k) and intercept (k,), which is not penalised, by penalty as a share of the mean eigenvalue."""
    middle, share = x.mean(dim=0), target.mean(dim=0)  # x may be a part of the rows that it was standardised with
    x, target = x - middle, target - share
    values, vectors = torch.linalg.eigh(x.T @ x)
    projected, scale = vectors.T @ (x.T @ target), values.mean()
    solutions = {}
    for penalty in RIDGE_PENALTIES:
        weight = vectors @ (projected / (values.clamp(min=0) + penalty * scale)[:, None])
        solutions[penalty] = (weight, share - middle @ weight)
    return solutions
