"""`mage benchmark`: speed of the library on this machine, compared with a plain implementation."""

import os
import tempfile
import time
from pathlib import Path

from mage.benchmarks import suite
from mage.benchmarks.graphs import graph_metrics
from mage.benchmarks.suite import PATHS, Row
from mage.cli.console import emit, note
from mage.cli.options.benchmark import Options
from mage.device import resolve_device
from mage.models.presets import PRESETS
from mage.runs.record import Record, command_line, write_record

PROTOCOL = {
    "ratio": "seconds of the plain baseline / seconds of ours, medians, taking turns in one process; without _b4, "
    "_b16: the worst over batch sizes",
    "small_pretrain": "192 wide, 6 + 3 blocks, 64 tokens, batch 128; against a loop of the same precision with "
    "PyTorch's fused attention",
    "probe": "against its floor, one feature pass and the head's training (fixed crops) or the feature passes alone "
    "(random crops): at best 1",
    "placement": "steps on a token cache in the device's memory against the same steps on its files",
    "plain": "float32, contiguous, attention written out, all logits, masks as booleans, AdamW per tensor",
    "timm": "timm's vit_base_patch16_224 at 224 pixels: forward, and a step of AdamW",
    "latency": "seconds of one image, decoding included; latency_ms_b1 in milliseconds",
    "host_syncs": "waits of one call of ours for the device; on a CPU, waits that there would be",
    "kernel_launches": "of one call of ours, on a GPU; peak_bytes: its memory at the peak",
    "time_share": "share of an operation in the time of one call of ours, by PyTorch's profiler, its own kernels alone",
    "graph_breaks": "with recompilations and host_syncs_per_step: of a small compiled training step over 300 steps; "
    "loss_max_rel: of its losses to the plain step's",
    "ceiling_share": "FLOPs of matrix products and convolutions / time / what this machine reaches on a matrix "
    "product or convolution in the precision used",
}

COMPILING_SECONDS = 100
"""Time that must be left of --gpu-minutes for counting the graphs of a compiled step."""


def run(options: Options) -> None:
    """Check, measure, print and record; the record is written after every job, so that a stopped run leaves results."""
    unknown = set(options.paths) - set(PATHS) - {"all"}
    if options.size not in PRESETS:
        raise ValueError(f"there is no size {options.size!r}; sizes are {', '.join(PRESETS)}")
    if unknown or not options.paths:
        raise ValueError(f"there is no path {', '.join(sorted(unknown))!r}; paths are all, {', '.join(PATHS)}")
    if not options.batch_sizes:
        raise ValueError("--batch-sizes needs at least one number of images")
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler writes its own messages to standard error
    metrics: dict[str, float] = {}
    start = time.perf_counter()
    if options.memory:
        metrics = suite.peak_memory_share(
            options.size, max(options.batch_sizes), precision=options.precision, device=options.device
        )

    def keep(more: dict[str, float]) -> None:
        metrics.update(more)
        if options.record is not None:
            seconds = {"total": time.perf_counter() - start}
            write_record(options.record, Record(command_line("mage benchmark"), 0, PROTOCOL, seconds, metrics))

    def report_row(rows: list[Row], limits: dict[str, float]) -> None:
        note(options, sentence(rows[-1]))
        keep(suite.metrics(rows, limits))

    jobs = suite.jobs_of(tuple(PATHS) if "all" in options.paths else options.paths, options.batch_sizes)
    if options.gpu_minutes is not None:
        jobs = list(suite.GPU_JOBS)
    suite.run(
        options.size, jobs, minutes=options.gpu_minutes, rounds=options.rounds, steps=options.steps,
        precision=options.precision, device=options.device, profiled=options.profile, on_row=report_row,
    )  # fmt: skip
    left = 0.0 if options.gpu_minutes is None else 60 * options.gpu_minutes - (time.perf_counter() - start)
    if options.graphs or left > COMPILING_SECONDS:
        note(options, "compiling a training step")
        with tempfile.TemporaryDirectory() as folder:
            keep(graph_metrics(Path(folder), device=resolve_device(options.device)))
    emit(options, metrics, "\n".join(f"{name}: {value:.4g}" for name, value in metrics.items()))


def sentence(row: Row) -> str:
    """One row as a readable sentence."""
    each = ", ".join(f"{way} {timing.median:.3g} s" for way, timing in row.seconds.items())
    share = f"{row.gflops:.0f} GFLOP/s, {row.ceiling_share:.0%} of the ceiling"
    return f"{row.work}, batch {row.batch}: per image {each}; {next(iter(row.seconds))} at {share}"
