"""Whether a training step is one graph: breaks, recompilations, waits for the device, and the losses it gives.

Masks are drawn on the CPU before the step; the rest of it is counted: forward pass, loss, backward pass, clipping,
optimizer and weight average of the library's own training loop.
"""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from mage import rng
from mage.masking import MaskRatioConfig, StepMask, step_mask
from mage.models import MAGEConfig, MAGETransformer
from mage.sampling.settings import SamplingConfig
from mage.training import pretrain
from mage.training.engine import Trainer
from mage.training.optim import OptimConfig
from mage.training.pretrain import Pretraining
from mage.training.run import RunConfig
from mage.vocabulary import Vocabulary

SIZES = MAGEConfig(64, 3, 2, decoder_width=64, decoder_depth=2, decoder_heads=2, dropout=0.0)
BATCH, GRID, CODES = 16, (8, 8), 64
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Graphs:
    """Counts over a run of training steps."""

    graph_breaks: int
    recompilations: int
    """Graphs beyond the first."""
    host_syncs_per_step: float
    """Times that a step would wait for a GPU."""
    losses: Tensor
    """Of every step."""


WAITS = ("aten::_local_scalar_dense", "aten::nonzero")
"""Operations that wait for a GPU: reading a number, and counting flags, as choosing rows by flags does."""
WATCHED = 10
"""Steps, the last ones, in which waits are counted."""


def graph_metrics(
    folder: Path, *, steps: int = 300, backend: str = "inductor", device: torch.device = CPU
) -> dict[str, float]:
    """Counts of a compiled run, and how far its losses lie from those of a plain one.

    folder: for the logs of both. loss_max_rel: largest relative deviation of a step's loss; _200: of 200 steps.
    """
    plain = count_graphs(folder / "plain", steps=steps, compiled=False, device=device)
    graphs = count_graphs(folder / "compiled", steps=steps, compiled=True, backend=backend, device=device)
    deviation = ((graphs.losses - plain.losses) / plain.losses).abs()
    return {
        "graph_breaks": float(graphs.graph_breaks),
        "recompilations": float(graphs.recompilations),
        "host_syncs_per_step": graphs.host_syncs_per_step,
        "host_syncs_per_step_plain": plain.host_syncs_per_step,
        "loss_max_rel": float(deviation.max()),
        "loss_max_rel_200": float(deviation[:200].max()),
    }


def count_graphs(
    folder: Path, *, steps: int, compiled: bool, backend: str = "inductor", device: torch.device = CPU
) -> Graphs:
    """Train a small network in float32 for `steps` steps at mask ratios from 0.5 to 1, and count.

    folder: for the run's log. backend: of torch.compile.
    """
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    masks = list(_masks(steps))
    network = _network()
    ids = torch.randint(CODES, (steps, BATCH, *GRID), generator=rng.generator(0, "graph tokens"))
    optim = OptimConfig(batch_size=BATCH, steps=steps, base_learning_rate=1e-3)
    task = Pretraining(
        network, None, lambda start, share: ({"tokens": batch} for batch in itertools.islice(ids, start, None)),
        num_images=BATCH * steps, optim=optim, masking=MaskRatioConfig(), sampling=SamplingConfig(), recipe={}, seed=0,
    )  # fmt: skip
    losses: list[Tensor] = []
    waits = 0
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(pretrain, "step_mask", side_effect=masks))
        with_backend = partialmethod(torch.nn.Module.compile, backend=backend)
        stack.enter_context(mock.patch.object(torch.nn.Module, "compile", with_backend))
        folder.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(task, folder, 0, {}, precision="float32", device=device, compiled=compiled)
        stack.enter_context(trainer.logging(RunConfig(), progress=False))
        module = trainer.modules["mage"]
        module.register_forward_hook(lambda _, inputs, loss: losses.append(loss.detach()))
        watched = min(WATCHED, steps - 1)  # the first step compiles
        for _ in range(steps - watched):
            trainer.train_step()
        for _ in range(watched):
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                trainer.train_step()
            waits += sum(_would_wait(event) for event in profiler.events())
    counters = torch._dynamo.utils.counters
    return Graphs(
        sum(counters["graph_break"].values()),
        max(0, counters["stats"]["unique_graphs"] - 1),
        waits / max(1, watched),
        torch.stack(losses),
    )


def _would_wait(event: FunctionEvent) -> bool:
    """Whether an operation would wait for a GPU. AdamW's own counters do not: there they are read by its kernel."""
    if event.name not in WAITS:
        return False
    callers, caller = [], event.cpu_parent
    while caller is not None:
        callers.append(caller.name)
        caller = caller.cpu_parent
    return "aten::_fused_adamw_" not in callers


def _masks(steps: int) -> Iterator[StepMask]:
    """Ratios from 0.5 to 1 in turn, drawn and counted ahead."""
    for step in range(steps):
        ratio = 0.5 + 0.5 * ((step * 7) % 20) / 19
        config = MaskRatioConfig(mode=ratio, std=0.0, low=0.5, high=1.0)
        drawn = step_mask(config, BATCH, GRID[0] * GRID[1], rng.generator(0, "graph mask", step), range(BATCH))
        _ = drawn.mask.kept_index, drawn.mask.masked_index
        yield drawn


def _network() -> MAGETransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MAGETransformer(SIZES, Vocabulary.fresh(CODES), GRID)
