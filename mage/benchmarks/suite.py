"""All benchmarks for one size of network, and the ratios computed from them."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mage import device as device_policy
from mage import rng
from mage.benchmarks.counters import count_call
from mage.benchmarks.features import features
from mage.benchmarks.generate import edit, generate, latency
from mage.benchmarks.growth import growth
from mage.benchmarks.measure import Timing, ceilings, count_flops, take_turns
from mage.benchmarks.memory import WAYS, peak_memory
from mage.benchmarks.placement import placement
from mage.benchmarks.pretrain import pretrain
from mage.benchmarks.probe import probe
from mage.benchmarks.small import small_pretrain
from mage.benchmarks.timm_anchor import timm_anchor
from mage.benchmarks.tokenize import detokenize, tokenize
from mage.benchmarks.tokenizer import tokenizer_step
from mage.benchmarks.work import OURS, Bench, Work, vqgan_of
from mage.building import build
from mage.models import MAGEConfig
from mage.pipeline import Mage
from mage.tokenizers import VQGANConfig

logger = logging.getLogger(__name__)
PATHS: dict[str, Callable[[Bench], list[Work]]] = {
    "tokenize": tokenize,
    "detokenize": detokenize,
    "pretrain": pretrain,
    "generate": generate,
    "edit": edit,
    "features": features,
    "probe": probe,
    "placement": placement,
    "tokenizer_step": tokenizer_step,
    "small_pretrain": small_pretrain,
    "growth": growth,
    "latency": latency,
    "timm_anchor": timm_anchor,
}
Job = tuple[str, int]
"""A path and a batch size."""
GPU_JOBS: tuple[Job, ...] = (
    ("pretrain", 64), ("timm_anchor", 64), ("features", 64), ("generate", 64), ("latency", 1), ("tokenize", 64),
    ("pretrain", 16), ("small_pretrain", 64), ("pretrain", 256), ("features", 256), ("timm_anchor", 256),
    ("generate", 16), ("tokenize", 256), ("placement", 64), ("detokenize", 16), ("tokenize", 16),
    ("tokenizer_step", 16),
)  # fmt: skip
"""Jobs for a GPU, the most important first: with few minutes the last ones are left out."""
ONCE = ("probe", "placement", "tokenizer_step", "small_pretrain")
"""Measured with the first batch size only; a plain tokenizer step of 16 images would take 18 GB. `growth` takes one
image: written-out attention over 1,024 tokens keeps 3 GB of each."""


LONG = ("timm_anchor",)
"""Compiled first, which takes longer than any measurement: their time says nothing about other jobs."""


@dataclass(frozen=True)
class Row:
    """One job at one batch size: seconds per image of each implementation, and our share of peak performance."""

    work: str
    batch: int
    seconds: dict[str, Timing]
    gflops: float
    """Performance of our implementation, in GFLOP/s."""
    ceiling: float
    """Peak performance of the machine for the same arithmetic and precision, in GFLOP/s."""
    counts: dict[str, float] = field(default_factory=dict)
    """Of one call of our implementation: waits, launches and memory on a GPU, and where its time goes if asked for."""

    @property
    def ceiling_share(self) -> float:
        """Our performance as a share of the peak, from 0 to 1."""
        return self.gflops / self.ceiling

    def times_faster(self, way: str, than: str) -> float:
        """Speed of one implementation relative to another."""
        return self.seconds[than].median / self.seconds[way].median


@contextmanager
def bench(
    size: str | MAGEConfig, batch: int, *, steps: int, precision: str, device: str, tokenizer: VQGANConfig | None = None
) -> Iterator[Bench]:
    """A model of random weights with a batch of random images, in a temporary folder."""
    model = build(size, tokenizer=tokenizer, precision=precision, device=device)
    plain = build(size, tokenizer=tokenizer, precision="float32", device=device)
    vqgan_of(plain).to(memory_format=torch.contiguous_format)
    shape = (batch, model.channels, *model.image_size)
    pixels = torch.rand(shape, generator=rng.generator(0, "benchmark images")).to(model.device)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield Bench(model, plain, pixels, steps=steps, folder=Path(folder), stack=stack)


def jobs_of(paths: Sequence[str], batch_sizes: Sequence[int]) -> list[Job]:
    """Every path with every batch size that it is measured with."""
    own = {"growth": (1,), "latency": (1,)} | dict.fromkeys(ONCE, tuple(batch_sizes[:1]))
    return [(path, batch) for path in paths for batch in own.get(path, tuple(batch_sizes))]


def run(
    size: str | MAGEConfig,
    jobs: Sequence[Job],
    *,
    rounds: int,
    steps: int,
    precision: str,
    device: str,
    tokenizer: VQGANConfig | None = None,
    minutes: float | None = None,
    profiled: bool = False,
    on_row: Callable[[list[Row], dict[str, float]], None] | None = None,
) -> tuple[list[Row], dict[str, float]]:
    """Measure; returns rows and the machine's ceilings.

    minutes: leave out jobs that would probably end later, see `expected`. A job for which the device has no memory is
    left out, too. profiled: also see where the time goes; on a GPU it always is. on_row: called with all rows after
    every new one.
    """
    start, lengths = time.perf_counter(), dict[Job, float]()
    limits: dict[str, float] = {}
    flops_per_image: dict[str, float] = {}
    rows: list[Row] = []

    def measure(path: str, batch: int) -> None:
        with bench(size, batch, steps=steps, precision=precision, device=device, tokenizer=tokenizer) as ready:
            limits.update(limits or ceilings(ready.device(), ready.model.precision))
            for work in PATHS[path](ready):
                if work.name not in flops_per_image:
                    flops_per_image[work.name] = count_flops(work.ways[work.first]) / work.images
                rows.append(_row(work, ready.model, batch, flops_per_image[work.name], limits, rounds, profiled))
                if on_row is not None:
                    on_row(rows, limits)

    for path, batch in jobs:
        begin = time.perf_counter()
        if minutes is not None and begin - start + expected((path, batch), lengths) > 60 * minutes:
            continue
        try:
            measure(path, batch)
        except torch.OutOfMemoryError as error:
            logger.warning("%s with %d images is left out: %s", path, batch, str(error).split(". ")[0])
        if device_policy.resolve_device(device).type == "cuda":
            torch.cuda.empty_cache()
        lengths[path, batch] = time.perf_counter() - begin
    return rows, limits


def expected(job: Job, lengths: dict[Job, float]) -> float:
    """Seconds that a job will take, judged by those so far: the same path with other images, else the longest.

    A path is taken to need as long with fewer images, and in proportion with more.
    """
    path, batch = job
    same = [seconds * max(1.0, batch / size) for (name, size), seconds in lengths.items() if name == path]
    return (
        min(same) if same else max((seconds for (name, _), seconds in lengths.items() if name not in LONG), default=0)
    )


def _row(
    work: Work, model: Mage, batch: int, flops: float, limits: dict[str, float], rounds: int, profiled: bool
) -> Row:
    timings = take_turns(work.ways, rounds=rounds, device=model.device)
    each = {
        way: Timing(*(seconds / work.images for seconds in (timing.median, timing.low, timing.high)))
        for way, timing in timings.items()
    }
    return Row(
        work.name,
        batch,
        each,
        flops / each[work.first].median / 1e9,
        limits[f"{work.ceiling}_{model.precision}"],
        count_call(work.ways[work.first], model.device) if profiled or model.device.type == "cuda" else {},
    )


def metrics(rows: Sequence[Row], limits: dict[str, float]) -> dict[str, float]:
    """Numbers for a record: ratios (the worst over batch sizes), shares of the ceiling, counts, seconds per image."""
    record: dict[str, float] = {f"ceiling_gflops_{name}": value for name, value in limits.items()}
    ratios: dict[str, list[float]] = {}
    for row in rows:
        for name, value in _ratios(row).items():
            ratios.setdefault(name, []).append(value)
            record[f"{name}_b{row.batch}"] = value
        record[f"gflops_{row.work}_b{row.batch}"] = row.gflops
        record[f"ceiling_share_{row.work}_b{row.batch}"] = row.ceiling_share
        for name, number in row.counts.items():
            kind, _, operation = name.partition(".")
            record[f"{kind}_{row.work}_b{row.batch}" + (f".{operation}" if operation else "")] = number
        for way, timing in row.seconds.items():
            if OURS not in row.seconds:  # an anchor: every way is of interest
                share = row.ceiling_share * row.seconds[next(iter(row.seconds))].median / timing.median
                record[f"ceiling_share_{row.work}_{way}_b{row.batch}"] = share
            record[f"seconds_{row.work}_{way}_b{row.batch}"] = timing.median
        if row.work == "latency":
            record["latency_ms_b1"] = 1e3 * row.seconds[OURS].median
            if f"{OURS}_graphs" in row.seconds:
                record["latency_ms_graphs_b1"] = 1e3 * row.seconds[f"{OURS}_graphs"].median
    for row in sorted(rows, key=lambda row: row.batch):  # the value of the largest batch is kept
        record[f"ceiling_share_{row.work}"] = row.ceiling_share
    return record | {name: min(values) for name, values in ratios.items()}


def _ratios(row: Row) -> dict[str, float]:
    if row.work == "pretrain":
        return {
            "train_cached_vs_plain_online": row.times_faster(OURS, "plain_online"),
            "train_cached_vs_plain_cached": row.times_faster(OURS, "plain"),
            "train_online": row.times_faster("ours_online", "plain_online"),
        }
    if OURS not in row.seconds:
        return {}
    baseline = next(way for way in row.seconds if not way.startswith(OURS))
    ours = [way for way in row.seconds if way.startswith(OURS)]
    return {row.work + way.removeprefix(OURS): row.times_faster(way, baseline) for way in ours}


def peak_memory_share(size: str, batch: int, *, precision: str, device: str) -> dict[str, float]:
    """Peak memory of a training step, ours as a share of the plain one's."""
    ours, plain = (peak_memory(size, batch, way, precision, device) for way in WAYS)
    return {"peak_memory_share": ours / plain, "peak_bytes_ours": float(ours), "peak_bytes_plain": float(plain)}
