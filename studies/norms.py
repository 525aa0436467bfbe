"""Layouts and group norms of the paper's tokenizer in bfloat16: `python studies/norms.py [--device cuda --batch 64]`.

Three variants, measured in turns: `default`, PyTorch's group norm in the layout of the library's CPU training;
`channels_last`, the same norm in that layout; `lean`, the library's own norm for GPUs (`mage/nn/norms.py`). Measured
are the time per image of encoding and decoding, and the share of ids equal to those of float32. Results are written to
results/norms_DEVICE.json.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from choices import RESULTS
from torch import Tensor, nn
from torch.nn import functional

from mage import rng
from mage.benchmarks.measure import take_turns
from mage.building import build
from mage.device import resolve_device
from mage.nn import norms
from mage.runs.record import Record, write_record
from mage.tokenizers import vqgan


def lean(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """The library's norm for GPUs, on any device."""
    return norms.lean_group_norm(x, norm)


WAYS = {
    "default": (nn.GroupNorm.forward, torch.contiguous_format),
    "channels_last": (nn.GroupNorm.forward, torch.channels_last),
    "lean": (lean, torch.channels_last),
}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--batch", type=int, default=4, help="images at a time")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way, of which the median counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    device = resolve_device(options.device)
    start = time.perf_counter()
    model, exact = (build("base", precision=precision, device=str(device)) for precision in ("bf16", "float32"))
    shape = (options.batch, 3, 256, 256)
    pixels = torch.rand(shape, generator=rng.generator(0, "norms")).to(device)
    ids = exact.encode(pixels)
    jobs: dict[str, Callable[[], Tensor]] = {
        "encode": lambda: model.encode(pixels),
        "decode": lambda: model.decode_tokens(ids),
    }

    def by(way: str, job: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            norm, layout = WAYS[way]
            norms.GroupNorm.forward = norm  # type: ignore[method-assign,assignment]
            norms.GroupNorm.with_silu = lambda own, x: functional.silu(norm(own, x))  # type: ignore[method-assign]
            vqgan.in_fast_layout = lambda x: x.contiguous(memory_format=layout)
            model.tokenizer.to(memory_format=layout)
            return job()

        return run

    metrics = {f"{way}.same_ids": float((by(way, jobs["encode"])() == ids).float().mean()) for way in WAYS}
    work = {f"{way}.{name}_seconds": by(way, job) for way in WAYS for name, job in jobs.items()}
    for name, timing in take_turns(work, rounds=options.rounds, device=device).items():
        metrics[name] = timing.median / options.batch
        print(name, metrics[name], flush=True)
    protocol = {
        "seconds": f"per image of 256 x 256, batches of {options.batch}, medians of {options.rounds} rounds, bfloat16",
        "same_ids": "share of ids that are those of float32, random images and weights",
    }
    command = f"python studies/norms.py --device {device.type} --batch {options.batch}"
    record = Record(command, 0, protocol, {"total": time.perf_counter() - start}, metrics)
    write_record(options.results / f"norms_{device.type}.json", record)


if __name__ == "__main__":
    main()
