"""A training that is stopped and goes on with other numbers of processes: its images, their order, and its losses."""

import contextlib
import hashlib
import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mage import distributed
from mage.benchmarks.processes import CPU, in_processes, task
from mage.share import Turn
from mage.training.engine import train
from mage.training.run import Interrupted, RunConfig
from mage.training.runlog import read_log
from mage.training.task import Loss, Task


class Recorded(Task):
    """Another task that also writes down which images it saw, and is stopped by a signal in step `stop`."""

    def __init__(self, inner: Task, seen: dict[tuple[int, int], str], stop: int) -> None:
        self.__dict__.update(inner.__dict__)
        self._inner, self._seen, self._stop = inner, seen, stop

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        """Those of the other task."""
        for row, image in zip(turn.rows, batch["images"], strict=True):
            self._seen[turn.step, row] = hashlib.sha256(image.numpy().tobytes()).hexdigest()
        if turn.step + 1 == self._stop:
            signal.raise_signal(signal.SIGTERM)
        return self._inner.losses(modules, batch, turn)

    def export(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        """No model is needed."""


@dataclass(frozen=True)
class Stage:
    """A part of a run: its processes, and the step it is stopped after."""

    processes: int
    stop: int
    workers: int = 0
    run: RunConfig = RunConfig(log_every=1, observe_every=10**6)  # noqa: RUF009  # frozen


ELASTIC = (
    Stage(1, 3),
    Stage(2, 6, 1, RunConfig(log_every=1, observe_every=10**6, strategy="fsdp", checkpoints="sharded")),
    Stage(4, 9, 0, RunConfig(log_every=1, observe_every=10**6, strategy="ddp", checkpoints="sharded")),
    Stage(2, 12, 0, RunConfig(log_every=1, observe_every=10**6, strategy="fsdp", checkpoints="whole")),
    Stage(1, 15, 2, RunConfig(log_every=1, observe_every=10**6, checkpoints="sharded")),
)
"""1 -> 2 -> 4 -> 2 -> 1 processes, whole -> cut -> whole -> cut -> whole, other formats and readers each time."""


def write_stage(folder: Path, stage: Stage, steps: int) -> None:
    """Continue the run in `folder` until the stage's end, and note the images seen; all processes must call it."""
    seen: dict[tuple[int, int], str] = {}
    recorded = Recorded(task("mae", steps, workers=stage.workers), seen, stage.stop)
    resume = (folder / "metrics.jsonl").exists()
    with contextlib.suppress(Interrupted):
        train(recorded, stage.run, folder, seed=0, settings={}, resume=resume, precision="float32", device=CPU,
              progress=False)  # fmt: skip
    noted = [[step, row, image] for (step, row), image in seen.items()]
    (folder / f"seen-{stage.stop}-{distributed.rank()}.json").write_text(json.dumps(noted))


def elastic_metrics(out: Path) -> dict[str, float]:
    """How a run that goes on with other processes differs from one that was never interrupted.

    order_mismatches: images of steps that are missing, others, or seen twice. elastic_loss_max_rel: of any step's loss.
    """
    steps = ELASTIC[-1].stop
    for folder, parts in (("whole", (Stage(1, steps),)), ("cut", ELASTIC)):
        for stage in parts:
            (out / folder).mkdir(parents=True, exist_ok=True)
            in_processes(stage.processes, write_stage, out / folder, stage, steps)
    seen, twice = {}, 0
    for folder in ("whole", "cut"):
        noted = [line for path in (out / folder).glob("seen-*.json") for line in json.loads(path.read_text())]
        seen[folder] = {(step, row): image for step, row, image in noted}
        twice += len(noted) - len(seen[folder])
    logs = [{line["step"]: line["loss"] for line in read_log(out / folder) if "loss" in line} for folder in seen]
    return {
        "order_mismatches": twice + float(sum(seen["cut"].get(row) != image for row, image in seen["whole"].items())),
        "elastic_loss_max_rel": max(abs(logs[1][step] / loss - 1) for step, loss in logs[0].items()),
    }
