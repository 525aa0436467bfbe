"""Greedy iterative decoding of one grid with plain loops (paper, section 3.2; docs/method.md, Schedule)."""

import math
from collections.abc import Callable


def greedy_decode(
    tokens: list[int], logits: Callable[[list[int]], list[list[float]]], steps: int
) -> tuple[list[int], list[list[bool]]]:
    """Fill the -1s; also which positions were unknown before each step."""
    start = sum(token == -1 for token in tokens)
    tokens, trace = list(tokens), []
    for step in range(steps):
        unknown = [token == -1 for token in tokens]
        trace.append(unknown)
        scores = logits(tokens)
        candidates = []
        for position, row in enumerate(scores):
            best = max(range(len(row)), key=lambda code: row[code])
            total = math.log(sum(math.exp(value - row[best]) for value in row))
            candidates.append((best, -total if unknown[position] else math.inf))
        left = sum(unknown)
        keep = math.floor(start * math.cos(math.pi / 2 * (step + 1) / steps))
        keep = 0 if left == 0 or step == steps - 1 else max(1, min(left - 1, keep))
        forgotten = sorted(range(len(tokens)), key=lambda position: candidates[position][1])[:keep]
        for position, (best, _) in enumerate(candidates):
            if unknown[position] and position not in forgotten:
                tokens[position] = best
    return tokens, trace
