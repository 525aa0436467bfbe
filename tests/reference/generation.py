"""Metrics of generated images with plain loops, from their papers."""

import math


def softmax(row: list[float]) -> list[float]:
    """Probabilities of one image."""
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def inception_score(logits: list[list[float]]) -> float:
    """exp of the mean divergence of p(class | image) from p(class), over one part (Salimans et al. 2016)."""
    rows = [softmax(row) for row in logits]
    classes = range(len(rows[0]))
    marginal = [sum(row[k] for row in rows) / len(rows) for k in classes]
    divergence = 0.0
    for row in rows:
        for k in classes:
            divergence += row[k] * (math.log(row[k]) - math.log(marginal[k]))
    return math.exp(divergence / len(rows))


def kernel(x: list[float], y: list[float]) -> float:
    """(x y / d + 1)^3."""
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def squared_mmd(x: list[list[float]], y: list[list[float]]) -> float:
    """Unbiased: pairs of different images within a set, all pairs across (Binkowski et al. 2018)."""
    n, m = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    across = sum(kernel(a, b) for a in x for b in y) / (n * m)
    return within_x + within_y - 2 * across


def ball_sizes(points: list[list[float]], k: int) -> list[float]:
    """Distance of each point to its k-th nearest other."""
    return [sorted(math.dist(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)]


def manifold(generated: list[list[float]], real: list[list[float]], k: int, dense_k: int) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    The edge belongs to the ball in the first paper's code (`<=`), and does not in the second's (`<`).
    """
    real_k, real_dense, generated_k = ball_sizes(real, k), ball_sizes(real, dense_k), ball_sizes(generated, k)
    precision = sum(any(math.dist(g, r) <= size for r, size in zip(real, real_k, strict=True)) for g in generated)
    recall = sum(any(math.dist(r, g) <= size for g, size in zip(generated, generated_k, strict=True)) for r in real)
    balls = sum(math.dist(g, r) < size for g in generated for r, size in zip(real, real_dense, strict=True))
    covered = sum(any(math.dist(g, r) < size for g in generated) for r, size in zip(real, real_dense, strict=True))
    return {
        "precision": precision / len(generated),
        "recall": recall / len(real),
        "density": balls / (dense_k * len(generated)),
        "coverage": covered / len(real),
    }
