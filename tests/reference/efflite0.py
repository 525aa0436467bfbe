"""EfficientNet-Lite0 written from its table of blocks, on the released names: no timm.

Padding "SAME": ceil(size / stride) outputs; of an odd padding the extra pixel goes to the bottom right. ReLU6.
BatchNorm eps 1e-3.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

# (repeats, kernel, stride, expansion) of each stage; within a stage only the first block strides
STAGES = ((1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6))
Weights = dict[str, Tensor]


def _same(x: Tensor, weight: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    padding: list[int] = []
    for size, kernel in ((x.shape[3], weight.shape[3]), (x.shape[2], weight.shape[2])):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        padding += [total // 2, total - total // 2]
    return functional.conv2d(functional.pad(x, padding), weight, stride=stride, groups=groups)


def _norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    def row(part: str) -> Tensor:
        return weights[f"{name}.{part}"][:, None, None]

    return (x - row("running_mean")) / torch.sqrt(row("running_var") + 1e-3) * row("weight") + row("bias")


def _relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


def stages(weights: Weights, images: Tensor) -> list[Tensor]:
    """Images in [-1, 1] -> output of the stem, then of each stage."""
    x = _relu6(_norm(_same(images, weights["_conv_stem.weight"], stride=2), weights, "_bn0"))
    found, index = [x], 0
    for repeats, kernel, stride, expansion in STAGES:
        for repeat in range(repeats):
            block, before = f"_blocks.{index}.", x
            if expansion != 1:
                x = _relu6(_norm(_same(x, weights[block + "_expand_conv.weight"]), weights, block + "_bn0"))
            depthwise = weights[block + "_depthwise_conv.weight"]
            assert depthwise.shape[2] == kernel
            x = _same(x, depthwise, stride=stride if repeat == 0 else 1, groups=len(depthwise))
            x = _relu6(_norm(x, weights, block + "_bn1"))
            x = _norm(_same(x, weights[block + "_project_conv.weight"]), weights, block + "_bn2")
            if repeat > 0:
                x = x + before
            index += 1
        found.append(x)
    return found


def pooled(weights: Weights, images: Tensor) -> Tensor:
    """Images in [-1, 1] -> the head's output, mean over positions."""
    x = stages(weights, images)[-1]
    return _relu6(_norm(_same(x, weights["_conv_head.weight"]), weights, "_bn1")).mean(dim=(2, 3))
