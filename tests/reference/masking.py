"""Masking and the decoding schedule with plain loops (paper, sections 3.1 and 3.2)."""

import math


def mask_from_noise(
    noise: list[list[float]], ratio: float, drop_ratio: float
) -> tuple[list[list[bool]], list[list[bool]]]:
    """For each row: the ceil(ratio L) smallest values are masked, the smallest of those dropped."""
    masked, dropped = [], []
    for row in noise:
        length = len(row)
        num_masked = math.ceil(ratio * length)
        num_dropped = min(math.ceil(drop_ratio * length), num_masked)
        order = sorted(range(length), key=lambda position: row[position])
        masked.append([position in order[:num_masked] for position in range(length)])
        dropped.append([position in order[:num_dropped] for position in range(length)])
    return masked, dropped


def remaining(length: int, steps: int) -> list[int]:
    """Unknown tokens after each step of decoding a grid of which nothing is known."""
    counts, unknown = [], length
    for step in range(steps):
        planned = math.floor(length * math.cos(math.pi / 2 * (step + 1) / steps))
        unknown = 0 if step == steps - 1 or unknown == 0 else max(1, min(unknown - 1, planned))
        counts.append(unknown)
    return counts
