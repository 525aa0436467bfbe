"""Peak memory of a training step, each implementation in a separate process."""

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch

from mage.benchmarks import plain
from mage.benchmarks.pretrain import engine_step, plain_step, repeated, trainable
from mage.benchmarks.work import OURS, Bench
from mage.building import build
from mage.device import resolve_device
from mage.nn.grids import area
from mage.pipeline import Mage

WAYS = (OURS, "plain")


def peak_memory(size: str, batch: int, way: str, precision: str, device: str) -> int:
    """Bytes at the peak of three training steps on cached tokens, measured in a new process.

    Raises ValueError if that process fails, for example for lack of memory.
    """
    command = [sys.executable, "-m", "mage.benchmarks.memory", size, str(batch), way, precision, device]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise ValueError(f"the peak memory of batch {batch} could not be measured: {reason}")
    return int(process.stdout)


def main(size: str, batch: int, way: str, precision: str, device: str) -> None:
    """Take three steps and print the peak."""
    resolved = resolve_device(device)
    network = trainable(build(size, device=device).require_generator())
    tokens = torch.zeros(batch, area(network.grid), dtype=torch.int64, device=resolved)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if way == OURS:
            model = Mage(None, None, precision=precision, device=device)
            bench = Bench(model, model, torch.zeros(batch, 3, 1, 1), steps=1, folder=Path(folder), stack=stack)
            step = engine_step(bench, network, repeated({"tokens": tokens}), Path(folder) / "run")
        else:
            optimizer = plain.adamw(network, 1e-4)

            def step() -> None:
                plain_step(network, optimizer, tokens)

        for _ in range(3):
            step()
    if resolved.type == "cuda":
        print(torch.cuda.max_memory_allocated(resolved))
    else:
        import resource  # Windows has none

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(peak if sys.platform == "darwin" else peak * 1024)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
