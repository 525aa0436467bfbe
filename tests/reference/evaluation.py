"""Probing and measuring with plain loops (paper, section 4.3; You et al. 2017; Wu et al. 2018; Heusel et al. 2017)."""

import math


def lars_steps(
    weights: list[float],
    gradients: list[list[float]],
    rates: list[float],
    *,
    momentum: float,
    trust_coefficient: float,
    adapt: bool,
) -> list[float]:
    """Weights after a step for each gradient: velocity = momentum velocity + trust |w| / |g| g; w -= rate velocity."""
    weights = list(weights)
    velocity = [0.0] * len(weights)
    for gradient, rate in zip(gradients, rates, strict=True):
        local = 1.0
        if adapt:
            weight_norm = math.sqrt(sum(value * value for value in weights))
            gradient_norm = math.sqrt(sum(value * value for value in gradient))
            local = trust_coefficient * weight_norm / gradient_norm
        for index, value in enumerate(gradient):
            velocity[index] = momentum * velocity[index] + local * value
            weights[index] -= rate * velocity[index]
    return weights


def knn_predict(
    bank: list[list[float]], labels: list[int], query: list[float], k: int, temperature: float | None
) -> int:
    """The class with the most votes among the k most similar; of equal ones the smallest."""

    def cosine(one: list[float], other: list[float]) -> float:
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))

    similarities = [cosine(row, query) for row in bank]
    votes = [0.0] * (max(labels) + 1)
    for index in sorted(range(len(bank)), key=lambda place: -similarities[place])[:k]:
        votes[labels[index]] += 1.0 if temperature is None else math.exp(similarities[index] / temperature)
    return votes.index(max(votes))


def mean_and_covariance(rows: list[list[float]]) -> tuple[list[float], list[list[float]]]:
    """Mean and unbiased covariance."""
    count, width = len(rows), len(rows[0])
    mean = [sum(row[i] for row in rows) / count for i in range(width)]
    covariance = [
        [sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in rows) / (count - 1) for j in range(width)]
        for i in range(width)
    ]
    return mean, covariance


def frechet_of_independent_gaussians(
    means: tuple[list[float], list[float]], deviations: tuple[list[float], list[float]]
) -> float:
    """With diagonal covariances the distance is |m1 - m2|^2 + |s1 - s2|^2 for the standard deviations s."""
    total = 0.0
    for first, second in (means, deviations):
        total += sum((a - b) ** 2 for a, b in zip(first, second, strict=True))
    return total
