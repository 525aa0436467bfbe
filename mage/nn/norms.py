"""Layout, group norm with SiLU or without, and sums of convolutional networks, without copies and conversions.

Letters: n images, c channels, h w positions, g groups.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def in_fast_layout(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The same tensor in the layout that convolutions and group norms are fastest in, which their outputs then have.

    On a GPU and other devices channels-last, in training too: convolutions of 16 bits need no copies in another layout.
    On CPUs it is slower in training, and in float32 PyTorch's group norm for it loses two digits; without gradients and
    in bfloat16 it halves the time.
    """
    plain = x.device.type == "cpu" and (torch.is_grad_enabled() or not torch.is_autocast_enabled("cpu"))
    return x.contiguous(memory_format=torch.contiguous_format if plain else torch.channels_last)


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`; on a GPU it keeps bfloat16 and the channels-last layout, in both passes.

    PyTorch's own converts to float32 under autocast and copies to the other layout, which together took longer than the
    convolutions of a tokenizer. On a CPU PyTorch's own is used, which is faster there.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Same shape."""
        if x.is_cuda and x.dtype == torch.bfloat16:
            return lean_group_norm(x, self)
        return super().forward(x)

    def with_silu(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """SiLU of the normalized input, of which training keeps neither: the backward pass computes them again."""
        if x.is_cuda and x.dtype == torch.bfloat16:
            return lean_group_norm(x, self, silu=True)
        return functional.silu(super().forward(x), inplace=not torch.is_grad_enabled())


def added(x: Float[Tensor, "n c h w"], h: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """x + h; without gradients the result takes the place of `h`, because new memory costs a CPU time."""
    return x + h if torch.is_grad_enabled() or x.dtype != h.dtype else h.add_(x)


def lean_group_norm(x: Float[Tensor, "n c h w"], norm: nn.GroupNorm, *, silu: bool = False) -> Float[Tensor, "n c h w"]:
    """Statistics in float32, then one multiplication and addition; layout and precision are those of `x`.

    silu: followed by SiLU. It has a derivative, not a second one.
    """
    if torch.compiler.is_compiling():  # a compiler fuses the plain formula, and finds its derivative
        scaled = _scaled(x, norm.weight, norm.bias, _statistics(x, norm.num_groups, norm.eps))
        return functional.silu(scaled) if silu else scaled
    result: Tensor = _LeanNorm.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)
    return result


class _Statistics(NamedTuple):
    """Of each group of channels."""

    mean: Float[Tensor, "n g"]
    rstd: Float[Tensor, "n g"]
    """1 / standard deviation."""


def _statistics(x: Float[Tensor, "n c h w"], groups: int, eps: float) -> _Statistics:
    count, channels, height, width = x.shape
    if x.is_contiguous():
        grouped, over = x.view(count, groups, -1, height * width), (2, 3)
    else:  # positions before channels: a view where the layout is channels-last
        grouped, over = x.permute(0, 2, 3, 1).reshape(count, height * width, groups, -1), (1, 3)
    wide = _wide(x)
    mean = grouped.mean(dim=over, dtype=wide)
    size = height * width * channels // groups
    square = torch.linalg.vector_norm(grouped, dim=over, dtype=wide).square() / size
    return _Statistics(mean, (square - mean.square()).clamp(min=0).add(eps).rsqrt())


def _scaled(
    x: Float[Tensor, "n c h w"], weight: Float[Tensor, " c"], bias: Float[Tensor, " c"], of: _Statistics
) -> Float[Tensor, "n c h w"]:
    groups, centre = of.mean.shape[1], _centre(x, of)
    scale = weight.to(_wide(x)).view(groups, -1) * of.rstd[..., None]
    shift = bias.to(_wide(x)).view(groups, -1) - centre.left[..., None] * scale
    return torch.addcmul(_per_channel(shift, x), centre.x, _per_channel(scale, x))


class _Centred(NamedTuple):
    """An input less its groups' means, as far as its precision can say them."""

    x: Float[Tensor, "n c h w"]
    left: Float[Tensor, "n g"]
    """What is left of the means: with all of it in `shift`, whose rounding would move whole groups."""


def _centre(x: Float[Tensor, "n c h w"], of: _Statistics) -> _Centred:
    mean = of.mean.to(x.dtype)
    each = mean[..., None].expand(-1, -1, x.shape[1] // mean.shape[1])
    return _Centred(x - _per_channel(each, x), of.mean - mean.to(of.mean.dtype))


def _per_channel(values: Float[Tensor, "n g k"], like: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 1 1"]:
    return values.reshape(*like.shape[:2], 1, 1).to(like.dtype)


def _wide(x: Tensor) -> torch.dtype:
    """The type of sums."""
    return torch.promote_types(x.dtype, torch.float32)


class _LeanNorm(torch.autograd.Function):
    """The norm with its derivative: what is kept for the backward pass is the input alone, in its precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
        of = _statistics(x, groups, eps)
        scaled = _scaled(x, weight, bias, of)
        ctx.save_for_backward(x, weight, bias, *of)
        ctx.silu = silu
        return functional.silu(scaled, inplace=True) if silu else scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """With y = x s + t per channel and group statistics m, r: dx = dy s - r (mean(dn) + n mean(dn n)).

        n = (x - m) r is the normalized input and dn = dy weight; means over a group.
        """
        x, weight, bias, mean, rstd = ctx.saved_tensors
        if ctx.silu:
            gradient = torch.ops.aten.silu_backward(gradient, _scaled(x, weight, bias, _Statistics(mean, rstd)))
        count, groups = mean.shape
        wide, size, centre = _wide(x), x[0].numel() // groups, _centre(x, _Statistics(mean, rstd))
        total = gradient.sum(dim=(2, 3), dtype=wide).view(count, groups, -1)
        product = (gradient * centre.x).sum(dim=(2, 3), dtype=wide).view(count, groups, -1)
        of_normalized = (product - centre.left[..., None] * total) * rstd[..., None]
        weights = weight.to(wide).view(groups, -1)
        along = rstd * (of_normalized * weights).sum(dim=2) / size
        level = (total * weights).sum(dim=2) / size
        by_x = (-rstd * along)[..., None].expand_as(total)
        constant = (rstd * (centre.left * along - level))[..., None].expand_as(total)
        of_x = torch.addcmul(_per_channel(constant, x), centre.x, _per_channel(by_x, x))
        of_x = torch.addcmul(of_x, gradient, _per_channel(weights * rstd[..., None], x))
        of_weight, of_bias = (part.sum(dim=0).flatten().to(weight.dtype) for part in (of_normalized, total))
        return of_x, of_weight, of_bias, None, None, None
