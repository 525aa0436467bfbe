"""Whether one training gives the same losses in any number of processes, whole (DDP) or cut (FSDP2).

Small networks without dropout are trained on the CPU by the library's own loop; the images of a step are the same,
however many processes share them. Nothing but rounding may differ, and in float64 that is next to nothing.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import multiprocessing
from torch.multiprocessing.spawn import start_processes

from mage import device, distributed, rng
from mage.data.batches import Batch, Batches
from mage.data.datasets import ArrayDataset
from mage.data.transforms import TransformConfig
from mage.models import MAGEConfig
from mage.models.mae import MAEConfig
from mage.runs.inputs import image_batches
from mage.share import Share
from mage.tokenizers import VQGAN
from mage.tokenizers.discriminator import DiscriminatorConfig
from mage.tokenizers.quantizers.base import QuantizerConfig
from mage.tokenizers.vqgan import VQGANConfig
from mage.training.adversarial import AdversarialConfig
from mage.training.contrastive import MAGECMethod
from mage.training.engine import Trainer
from mage.training.method import MethodInputs
from mage.training.optim import OptimConfig
from mage.training.pixels import MAEMethod
from mage.training.pretrain import MAGEMethod
from mage.training.run import RunConfig, Strategy
from mage.training.task import Task
from mage.training.tokenizer import TokenizerLossConfig, TokenizerTraining

SIZES = MAGEConfig(16, 2, 2, decoder_width=16, decoder_depth=1, decoder_heads=2, dropout=0.0)
LARGER = MAGEConfig(128, 4, 4, decoder_width=128, decoder_depth=2, decoder_heads=4, dropout=0.0)
BATCH, GRID, CODES, SIDE = 16, (4, 4), 16, 8
Optimizer = Literal["adamw", "muon"]
TASKS = ("mage", "mage-c", "mae", "tokenizer")
CPU = torch.device("cpu")


def in_processes(count: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(*arguments)` in `count` new processes that have joined one group. Raises if it fails in any of them.

    They are copies of one that has imported PyTorch already, which is started for the first of them.
    """
    multiprocessing.set_forkserver_preload([work.__module__])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(_joined, (count, port, work, arguments), count, start_method="forkserver")


def _joined(rank: int, count: int, port: int, work: Callable[..., None], arguments: Sequence[Any]) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in numbers.items()}
    torch.set_num_threads(1)
    device.start("cpu")
    work(*arguments)


def tokens_in_memory(steps: int, grid: tuple[int, ...] = GRID, batch: int = BATCH) -> Batches:
    """Two random views of each image, as tokens, and no more than `steps` batches."""
    views = torch.randint(CODES, (2, steps, batch, *grid), generator=rng.generator(0, "study tokens"))

    def batches(start: int, share: Share) -> Iterator[Batch]:
        for step in range(start, steps):
            for part in range(share.parts):
                rows = share.rows(part)
                first, second = views[:, step, rows.start : rows.stop]
                yield {"tokens": first, "second": second}

    return batches


def pictures(optim: OptimConfig, workers: int = 0) -> Batches:
    """Random grey images, shifted and mirrored, read by `workers` processes."""
    pixels = torch.randint(0, 256, (100, 1, SIDE, SIDE), generator=rng.generator(0, "study images")).to(torch.uint8)
    transform = TransformConfig((SIDE, SIDE), augmentation="crop_flip")
    return image_batches(ArrayDataset("study", pixels, None), transform, optim, 0, workers=workers)


def task(name: str, steps: int, *, workers: int = 0, optimizer: Optimizer = "adamw") -> Task:
    """A small training: one of TASKS."""
    optim = OptimConfig(batch_size=BATCH, steps=steps, base_learning_rate=1e-2, ema_decay=0.99, optimizer=optimizer)
    held = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8)
    built: Task
    if name == "tokenizer":
        quantizer = QuantizerConfig(kind="normalized", num_codes=CODES, warmup_steps=4)
        config = VQGANConfig((SIDE, SIDE), 1, 16, (1,), patch_size=2, blocks=1, decoder_blocks=1, middle_blocks=0,
                             code_width=4, quantizer=quantizer)  # fmt: skip
        adversarial = AdversarialConfig(0.5, start=0.1, discriminator=DiscriminatorConfig(levels=1, width=8))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = TokenizerTraining(
                VQGAN(config), pictures(optim, workers), num_images=100, optim=replace(optim, base_learning_rate=1e-3),
                loss=TokenizerLossConfig(adversarial=adversarial), recipe={}, validation=held,
            )  # fmt: skip
    else:
        methods = {
            "mage": MAGEMethod(),
            "mage-c": MAGECMethod(),
            "mae": MAEMethod(patch_size=2, mae=MAEConfig(decoder_width=16, decoder_depth=1, decoder_heads=2)),
        }
        source = pictures(optim, workers) if name == "mae" else tokens_in_memory(steps)
        inputs = MethodInputs(
            model=SIZES, source=source, num_images=100, optim=optim, recipe={}, seed=0, validation=held, grid=GRID,
            num_codes=CODES, image_size=(SIDE, SIDE), channels=1,
        )  # fmt: skip
        built = methods[name].build(inputs)
    for module in built.modules.values():
        module.to(torch.get_default_dtype())
    return built


def losses_of(name: str, runs: "Runs", strategy: Strategy, folder: Path) -> list[float]:
    """The loss of the whole batch in every step; all processes must call it. folder: for a log, which stays empty."""
    trainer = Trainer(
        task(name, runs.steps, optimizer=runs.optimizer),
        folder,
        0,
        {},
        precision="float32",
        device=CPU,
        strategy=strategy,
    )
    key, losses = "loss" if len(trainer.modules) == 1 else f"{name}/loss", []
    with trainer.logging(RunConfig(), progress=False):
        for _ in range(runs.steps):
            trainer.train_step()
            losses.append(trainer.window.read()[key])
    return losses


@dataclass(frozen=True)
class Runs:
    """What to train, for all tasks, in one number of processes."""

    steps: int
    kinds: tuple[tuple[str, Strategy], ...]
    """(name of a dtype, strategy)."""
    names: tuple[str, ...] = TASKS
    optimizer: Optimizer = "adamw"


def write_losses(out: Path, runs: Runs) -> None:
    """Train them all, and write their losses to `out`; all processes must call it."""
    found: dict[str, list[float]] = {}
    for dtype, strategy in runs.kinds:
        torch.set_default_dtype(getattr(torch, dtype))
        with distributed.within(distributed.BOUND):
            for name in runs.names:
                found[f"{dtype} {strategy} {name}"] = losses_of(name, runs, strategy, out.parent)
    if distributed.is_first():
        out.write_text(json.dumps(found))


def deviations(one: Mapping[str, list[float]], others: Sequence[Mapping[str, list[float]]]) -> dict[str, float]:
    """Largest relative deviation of losses from those of one process, by dtype, step and strategy, over all tasks."""
    worst: dict[str, float] = {}
    for runs in others:
        for key, losses in runs.items():
            dtype, strategy, name = key.split(" ")
            alone = torch.tensor(one[f"{dtype} ddp {name}"], dtype=torch.float64)
            each = (torch.tensor(losses, dtype=torch.float64) - alone).abs() / alone.abs()
            ends = {"max": each.max()} if dtype == "float64" else {"step1": each[0], f"step{len(each)}": each[-1]}
            for end, deviation in ends.items():
                for label in (f"{dtype}_{end}_rel", f"{dtype}_{end}_rel_{strategy}"):
                    worst[label] = max(worst.get(label, 0.0), float(deviation))
    return worst


def exchanged_bytes(parameters: int, processes: int) -> float:
    """Bytes that a process sends in one step: gradients in float32, summed along a ring (Patarasu and Yuan 2009)."""
    return 2 * (processes - 1) / processes * parameters * 4


def write_pace(out: Path, steps: int, batch: int) -> None:
    """Time a larger network, and count the bytes that a process writes; all processes must call it."""
    grid = (8, 8)
    optim = OptimConfig(batch_size=batch, steps=steps + 2, base_learning_rate=1e-3)
    source = tokens_in_memory(steps + 2, grid, batch)
    inputs = MethodInputs(model=LARGER, source=source, num_images=100, optim=optim, recipe={}, seed=0, grid=grid,
                          num_codes=CODES)  # fmt: skip
    trainer = Trainer(MAGEMethod().build(inputs), out.parent, 0, {}, precision="float32", device=CPU)
    with trainer.logging(RunConfig(), progress=False):
        for _ in range(2):
            trainer.train_step()
        distributed.wait_for_all()
        before, start = _written(), time.perf_counter()
        for _ in range(steps):
            trainer.train_step()
        seconds, written = time.perf_counter() - start, _written() - before
    weights = sum(weight.numel() for weight in trainer.task.modules["mage"].parameters() if weight.requires_grad)
    if distributed.is_first():
        out.write_text(json.dumps({"seconds": seconds, "bytes": written / steps, "parameters": weights}))


def _written() -> int:
    """Bytes that this process has written so far, to sockets and files; 0 where the system does not tell."""
    path = Path("/proc/self/io")
    lines = dict(line.split(": ") for line in path.read_text().splitlines()) if path.is_file() else {}
    return int(lines.get("wchar", 0))


def pace_metrics(out: Path, *, steps: int = 20, batch: int = 32) -> dict[str, float]:
    """Efficiency of two processes against one, and the bytes they exchange against the formula."""
    found = {}
    for count in (1, 2):
        in_processes(count, write_pace, out / f"pace{count}.json", steps, batch)
        found[count] = json.loads((out / f"pace{count}.json").read_text())
    return {
        "efficiency_2": found[1]["seconds"] / found[2]["seconds"] / 2,
        "bytes_over_formula": found[2]["bytes"] / exchanged_bytes(found[2]["parameters"], 2),
    }


def loss_metrics(
    out: Path, *, steps: int = 200, names: tuple[str, ...] = TASKS, most: int = 4, optimizer: Optimizer = "adamw"
) -> dict[str, float]:
    """Deviations of 2 and `most` processes from one, over all tasks, in float64 and in float32."""
    alone: tuple[tuple[str, Strategy], ...] = (("float64", "ddp"), ("float32", "ddp"))
    cut: tuple[tuple[str, Strategy], ...] = (("float64", "fsdp"), ("float32", "fsdp"))
    found = []
    for count in (1, 2, 4)[: 2 + (most > 2)]:
        path = out / f"losses{count}.json"
        in_processes(count, write_losses, path, Runs(steps, alone if count == 1 else alone + cut, names, optimizer))
        found.append(json.loads(path.read_text()))
    return deviations(found[0], found[1:])
