"""What a call on a GPU costs besides its time: waits for it, kernels that are launched, memory at its peak."""

from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

WAIT = "cudaStreamSynchronize"
"""What CUDA calls a wait, whichever operation asked for it."""
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
"""Beginnings of the names of calls that start work on a GPU."""


def count_call(function: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Counts of one call by name; none without a GPU.

    Call the function once before, because a first call compiles and allocates. peak_bytes: of all tensors, the model's
    weights with them.
    """
    if device.type != "cuda":
        return {}
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        function()
    counts = count_events(event.name for event in profiler.events())
    return counts | {"peak_bytes": float(torch.cuda.max_memory_allocated(device))}


def count_events(names: Iterable[str]) -> dict[str, float]:
    """Waits and launches among the events of a profile."""
    every = list(names)
    return {
        "host_syncs": float(sum(name == WAIT for name in every)),
        "kernel_launches": float(sum(name.startswith(LAUNCHES) for name in every)),
    }
