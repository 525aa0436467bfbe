"""What a call costs besides its time: waits for a GPU, launched kernels, memory at its peak, and where time goes."""

from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

WAIT = "cudaStreamSynchronize"
"""What CUDA calls a wait, whichever operation asked for it."""
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
"""Beginnings of the names of calls that start work on a GPU."""
MOST = 8
"""Operations of a profile that are named."""


def count_call(function: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Counts of one call by name; on a CPU none but `time_shares`.

    Call the function once before, because a first call compiles and allocates. peak_bytes: of all tensors, the model's
    weights with them.
    """
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as profiler:
        function()
    seconds = {
        event.key: event.self_device_time_total if gpu else event.self_cpu_time_total
        for event in profiler.key_averages()
        if event.device_type.name == "CPU"  # operations: kernels are events of their own, counted there
    }
    shares = {f"time_share.{name}": share for name, share in time_shares(seconds).items()}
    if not gpu:
        return shares
    counts = count_events(event.name for event in profiler.events())
    return counts | {"peak_bytes": float(torch.cuda.max_memory_allocated(device))} | shares


def count_events(names: Iterable[str]) -> dict[str, float]:
    """Waits and launches among the events of a profile."""
    every = list(names)
    return {
        "host_syncs": float(sum(name == WAIT for name in every)),
        "kernel_launches": float(sum(name.startswith(LAUNCHES) for name in every)),
    }


def time_shares(seconds: dict[str, float]) -> dict[str, float]:
    """Shares of the whole time by operation, the longest first; those beyond the first few are "others"."""
    total = max(sum(seconds.values()), 1e-12)
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    shares = {name.removeprefix("aten::"): taken / total for name, taken in ordered[:MOST] if taken > 0}
    return shares | {"others": max(0.0, 1.0 - sum(shares.values()))}
