"""Timing of alternatives in one process, in turns, by medians; and the machine's peak performance."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mage.device import bf16_is_fast

LEAST_SECONDS = 0.2
"""Shorter work is repeated within one measurement until it takes about this long."""

LONG_SECONDS = 20.0
"""For work this long, warm-up is negligible: the first call counts as a measurement."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median: float
    low: float
    high: float


def take_turns(work: Mapping[str, Callable[[], object]], *, rounds: int, device: torch.device) -> dict[str, Timing]:
    """Time each piece of work `rounds` times, one after the other in every round, after one call each to warm up."""
    repeats: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for name, function in work.items():
        taken = _seconds(function, 1, device)  # compiles, allocates, fills caches
        if taken < 5 * LEAST_SECONDS:
            taken = _seconds(function, 1, device)
        repeats[name] = max(1, round(LEAST_SECONDS / max(1e-6, taken)))
        if taken >= LONG_SECONDS:
            seconds[name].append(taken)
    for turn in range(rounds):
        for name, function in work.items():
            if len(seconds[name]) <= turn:
                seconds[name].append(_seconds(function, repeats[name], device))
    return {name: Timing(statistics.median(values), min(values), max(values)) for name, values in seconds.items()}


def _seconds(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def count_flops(function: Callable[[], object]) -> float:
    """FLOPs of the matrix products and convolutions that a call makes; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        function()
    return float(counter.get_total_flops())


def ceilings(device: torch.device, precision: str) -> dict[str, float]:
    """Peak performance of this machine in GFLOP/s, for a matrix product and a 3 x 3 convolution.

    In float32, in bf16 if the hardware supports it, and always in `precision`.
    """
    side, channels, pixels = (2048, 128, 64) if device.type == "cpu" else (8192, 256, 128)
    work: dict[str, Callable[[], object]] = {}
    flops: dict[str, float] = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        if dtype == torch.bfloat16 and precision != "bf16" and not bf16_is_fast(device):
            continue  # without hardware support one product takes longer than a whole benchmark
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        layout = torch.channels_last if dtype == torch.bfloat16 else torch.contiguous_format
        x = torch.randn(16, channels, pixels, pixels, device=device, dtype=dtype).contiguous(memory_format=layout)
        kernel = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype).contiguous(memory_format=layout)
        work[f"matmul_{name}"] = _bound(torch.mm, a, b)
        work[f"conv3x3_{name}"] = _bound(functional.conv2d, x, kernel, padding=1)
    with torch.inference_mode():
        for name, function in work.items():
            flops[name] = count_flops(function)
        best = take_turns(work, rounds=5, device=device)
    return {name: flops[name] / best[name].low / 1e9 for name in work}


def _bound(function: Callable[..., Tensor], *arguments: Any, **options: Any) -> Callable[[], object]:
    return lambda: function(*arguments, **options)
