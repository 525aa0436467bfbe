"""Drawing codes from logits: temperature, top-k, top-p, and the noise on confidences.

Letters: n grids, l tokens, u positions that are scored, c codes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import rng


def draw_codes(
    log_probability: Float[Tensor, "n u c"],
    uniform: Float[Tensor, "n u"] | None,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Int[Tensor, "n u"]:
    """One code per place, by inverting the distribution function.

    uniform: a number in [0, 1) per place; None at temperature 0, which takes the most probable code.
    top_k, top_p: draw from the most probable codes only (0, 1: from all).
    """
    if temperature == 0:
        return log_probability.argmax(dim=-1)
    assert uniform is not None
    probability = most_probable((log_probability / temperature).softmax(dim=-1), top_k, top_p)
    cumulative = probability.cumsum(dim=-1)
    threshold = uniform[..., None] * cumulative[..., -1:]
    codes = torch.searchsorted(cumulative, threshold, right=True)[..., 0]
    return codes.clamp(max=log_probability.shape[-1] - 1)


def relaxed_codes(
    log_probability: Float[Tensor, "n u c"],
    generators: Sequence[torch.Generator],
    places: Int[Tensor, "n u"],
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    softness: float = 1.0,
) -> Float[Tensor, "n u c"]:
    """One code per place as a row with a single 1, whose gradient is that of a Gumbel softmax (Jang et al. 2017).

    The distribution is that of `draw_codes`, the random numbers are others: the code with the largest log-probability
    plus Gumbel noise is taken. softness: temperature of the softmax that gives the gradient; a smaller one is closer to
    the one-hot row, and noisier.
    """
    if temperature == 0:
        noisy = log_probability
    else:
        count = log_probability.shape[-1]
        uniform = rng.uniform_rows(generators, length * count, like=log_probability).view(len(places), length, count)
        chosen = uniform.gather(1, places[..., None].expand(-1, -1, count))
        kept = most_probable((log_probability.detach() / temperature).softmax(dim=-1), top_k, top_p) > 0
        noisy = (log_probability / temperature + gumbel_noise(chosen)).masked_fill(~kept, -torch.inf)
    soft = (noisy / softness).softmax(dim=-1)
    hard = torch.zeros_like(soft).scatter(-1, noisy.argmax(dim=-1, keepdim=True), 1.0)
    return hard + soft - soft.detach()


def most_probable(probability: Float[Tensor, "*n c"], top_k: int, top_p: float) -> Float[Tensor, "*n c"]:
    """Set all but the `top_k` most probable codes to 0, then all beyond a cumulative `top_p`; not normalised.

    The most probable code is always kept.
    """
    if top_k and top_k < probability.shape[-1]:
        least = probability.topk(top_k, dim=-1).values[..., -1:]
        probability = probability.where(probability >= least, 0)
    if top_p < 1:
        ordered = probability.sort(dim=-1, descending=True)
        before = ordered.values.cumsum(dim=-1) - ordered.values
        kept = ordered.values.where(before < top_p * ordered.values.sum(dim=-1, keepdim=True), 0)
        probability = torch.zeros_like(probability).scatter(-1, ordered.indices, kept)
    return probability


def gumbel_noise(uniform: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Standard Gumbel noise from uniform numbers in [0, 1)."""
    tiny = torch.finfo(uniform.dtype).tiny
    return -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
