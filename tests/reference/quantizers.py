"""Quantizers written from their papers with loops."""

import math

import torch
from torch import Tensor


def nearest_by_loops(latent: Tensor, words: Tensor) -> list[int]:
    """Index of the word at the smallest squared distance, for each position of (n, d, h, w)."""
    found = []
    for vector in latent.detach().permute(0, 2, 3, 1).reshape(-1, latent.shape[1]).tolist():
        distances = [sum((a - b) ** 2 for a, b in zip(vector, word, strict=True)) for word in words.tolist()]
        found.append(distances.index(min(distances)))
    return found


def entropy_by_loops(affinity: Tensor, temperature: float) -> Tensor:
    """Mean entropy of the rows' softmax minus entropy of the mean softmax."""
    shares = []
    for row in affinity.detach().double().tolist():
        top = max(row)
        weights = [math.exp((value - top) / temperature) for value in row]
        shares.append([weight / sum(weights) for weight in weights])

    def entropy(share: list[float]) -> float:
        return -sum(p * math.log(p) for p in share if p > 0)

    mean = [sum(share[k] for share in shares) / len(shares) for k in range(len(shares[0]))]
    return torch.tensor(sum(map(entropy, shares)) / len(shares) - entropy(mean))


def fsq_by_loops(vector: list[float], levels: tuple[int, ...]) -> tuple[int, list[float]]:
    """Id and word of one vector (Mentzer et al. 2023, section 3 and appendix A)."""
    code, basis, word = 0, 1, []
    for value, level in zip(vector, levels, strict=True):
        half = (level - 1) * 1.001 / 2
        offset = 0.5 if level % 2 == 0 else 0.0
        number = round(math.tanh(value + math.atanh(offset / half)) * half - offset)
        code += (number + level // 2) * basis
        basis *= level
        word.append(number / (level // 2))
    return code, word


def lfq_by_loops(vector: list[float]) -> int:
    """The signs as a binary number, lowest bit first."""
    return sum(2**i for i, value in enumerate(vector) if value > 0)


def k_means_by_loops(vectors: Tensor, words: Tensor, *, spherical: bool, rounds: int) -> Tensor:
    """Lloyd's algorithm."""
    words = words.clone()
    for _ in range(rounds):
        owners: list[list[Tensor]] = [[] for _ in words]
        for vector in vectors:
            if spherical:
                owners[int(torch.stack([vector @ word for word in words]).argmax())].append(vector)
            else:
                owners[int(torch.stack([(vector - word).square().sum() for word in words]).argmin())].append(vector)
        for index, own in enumerate(owners):
            if own:
                mean = torch.stack(own).mean(dim=0)
                words[index] = mean / mean.norm() if spherical else mean
    return words
