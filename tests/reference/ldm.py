"""The taming VQGAN written as formulas over the tensors of its file; nothing here knows the library's modules."""

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


def encode(state: State, images: Tensor, groups: int) -> Tensor:
    """Images in [0, 1] -> ids (n, h, w), by the smallest distance."""
    x = convolve(state, "encoder.conv_in", 2 * images - 1)
    level = 0
    while f"encoder.down.{level}.block.0.norm1.weight" in state:
        x = blocks(state, f"encoder.down.{level}", x, groups)
        if f"encoder.down.{level}.downsample.conv.weight" in state:
            padded = functional.pad(x, (0, 1, 0, 1))
            name = f"encoder.down.{level}.downsample.conv"
            x = functional.conv2d(padded, state[f"{name}.weight"], state[f"{name}.bias"], stride=2)
        level += 1
    x = middle(state, "encoder", x, groups)
    z = convolve(
        state, "quant_conv", convolve(state, "encoder.conv_out", swish(norm(state, "encoder.norm_out", x, groups)))
    )
    words = state["quantize.embedding.weight"]
    distances = (z.permute(0, 2, 3, 1)[..., None, :] - words).square().sum(dim=-1)
    return distances.argmin(dim=-1)


def decode(state: State, ids: Tensor, groups: int) -> Tensor:
    """Ids -> images, clamped to [0, 1]."""
    x = convolve(state, "post_quant_conv", state["quantize.embedding.weight"][ids].permute(0, 3, 1, 2))
    x = middle(state, "decoder", convolve(state, "decoder.conv_in", x), groups)
    level = max(int(name.split(".")[2]) for name in state if name.startswith("decoder.up."))
    for number in range(level, -1, -1):
        x = blocks(state, f"decoder.up.{number}", x, groups)
        if number:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            x = convolve(state, f"decoder.up.{number}.upsample.conv", x)
    x = convolve(state, "decoder.conv_out", swish(norm(state, "decoder.norm_out", x, groups)))
    return (x / 2 + 0.5).clamp(0, 1)


def middle(state: State, half: str, x: Tensor, groups: int) -> Tensor:
    """Block, attention, block."""
    x = block(state, f"{half}.mid.block_1", x, groups)
    if f"{half}.mid.attn_1.q.weight" in state:
        x = attention(state, f"{half}.mid.attn_1", x, groups)
    return block(state, f"{half}.mid.block_2", x, groups)


def blocks(state: State, name: str, x: Tensor, groups: int) -> Tensor:
    """The blocks of a level, each followed by attention if the level has any."""
    index = 0
    while f"{name}.block.{index}.norm1.weight" in state:
        x = block(state, f"{name}.block.{index}", x, groups)
        if f"{name}.attn.{index}.q.weight" in state:
            x = attention(state, f"{name}.attn.{index}", x, groups)
        index += 1
    return x


def block(state: State, name: str, x: Tensor, groups: int) -> Tensor:
    """Residual block."""
    h = convolve(state, f"{name}.conv1", swish(norm(state, f"{name}.norm1", x, groups)))
    h = convolve(state, f"{name}.conv2", swish(norm(state, f"{name}.norm2", h, groups)))
    return h + (convolve(state, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in state else x)


def attention(state: State, name: str, x: Tensor, groups: int) -> Tensor:
    """softmax(q k / sqrt(c)) v over positions."""
    h = norm(state, f"{name}.norm", x, groups)
    q, k, v = (convolve(state, f"{name}.{letter}", h).flatten(2) for letter in "qkv")
    weights = torch.softmax(torch.einsum("nci,ncj->nij", q, k) / q.shape[1] ** 0.5, dim=2)
    seen = torch.einsum("nij,ncj->nci", weights, v).view(x.shape)
    return x + convolve(state, f"{name}.proj_out", seen)


def norm(state: State, name: str, x: Tensor, groups: int) -> Tensor:
    """GroupNorm."""
    return functional.group_norm(x, groups, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)


def convolve(state: State, name: str, x: Tensor) -> Tensor:
    """A convolution that keeps the size."""
    weight = state[f"{name}.weight"]
    return functional.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def swish(x: Tensor) -> Tensor:
    """x sigmoid(x)."""
    return x * torch.sigmoid(x)
