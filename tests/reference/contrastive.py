"""InfoNCE and NT-Xent with plain loops (paper, section 3.3; Chen et al. 2020, equation 1)."""

import math

Rows = list[list[float]]


def dot(a: list[float], b: list[float]) -> float:
    """Inner product."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def info_nce(first: Rows, second: Rows, temperature: float, use: list[bool], *, same_view: bool = False) -> float:
    """Mean over used images and both directions of -log of the positive's share among all candidates."""
    terms = []
    for anchors, others in ((first, second), (second, first)):
        for i, anchor in enumerate(anchors):
            if not use[i]:
                continue
            total = sum(
                math.exp(dot(anchor, other) / temperature) for other, used in zip(others, use, strict=True) if used
            )
            if same_view:
                total += sum(
                    math.exp(dot(anchor, same) / temperature) for j, same in enumerate(anchors) if j != i and use[j]
                )
            terms.append(math.log(total) - dot(anchor, others[i]) / temperature)
    return sum(terms) / len(terms)
