"""Two processes, one of which dies, stalls or works long: `lost.py CASE OUT BOUND`; what the other sees is in OUT."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mage import distributed
from mage.benchmarks.processes import CPU, in_processes, task
from mage.share import Turn
from mage.training.engine import train
from mage.training.run import RunConfig
from mage.training.task import Loss, Task


class Struck(Task):
    """A training in which process 1 sends itself a signal in step 3."""

    def __init__(self, inner: Task, number: int) -> None:
        self.__dict__.update(inner.__dict__)
        self._inner, self._number = inner, number

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        if turn.step == 3 and distributed.rank() == 1:
            os.kill(os.getpid(), self._number)
        return self._inner.losses(modules, batch, turn)


def training(folder: Path, number: int, bound: float) -> None:
    """Process 1 is struck by a signal while both train; process 0 writes down what it is told, and ends process 1."""

    def both() -> None:
        run = RunConfig(observe_every=100, timeout=bound)
        struck = Struck(task("mage", 50), number)
        train(struck, run, folder / "run", seed=0, settings={}, precision="float32", device=CPU, progress=False)

    _watch(folder, both, survivor=0)


def validating(folder: Path, bound: float) -> None:
    """Process 0, which holds the store, stops while process 1 waits for its result, and was slow to meet."""

    def both() -> None:
        if distributed.rank() == 1:
            torch.distributed.new_group = _slowly(torch.distributed.new_group)
        with distributed.within(bound):
            distributed.by_first_process(lambda: os.kill(os.getpid(), signal.SIGSTOP))

    _watch(folder, both, survivor=1)


def _slowly(new_group: Callable[..., object]) -> Callable[..., object]:
    """The function, which asks the store of process 0 once more when the other process has left it already."""

    def slow(**settings: object) -> object:
        group = new_group(**settings)
        time.sleep(1)
        torch.distributed.distributed_c10d._get_default_store().add("slow", 0)
        return group

    return slow


def working_for_long(folder: Path, bound: float) -> None:
    """Process 0 works for three times the bound while process 1 waits."""
    with distributed.within(bound):
        result = distributed.by_first_process(lambda: time.sleep(3 * bound) or "done")  # type: ignore[func-returns-value]
        total = distributed.sum_over_processes(torch.ones(1))
    (folder / f"{distributed.rank()}.json").write_text(json.dumps([result, float(total)]))


def _watch(folder: Path, both: object, *, survivor: int) -> None:
    rank = distributed.rank()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which a launcher sends to the others when one has died
    (folder / f"pid{rank}").write_text(str(os.getpid()))
    distributed.wait_for_all()
    start = time.monotonic()
    try:
        both()  # type: ignore[operator]
    except distributed.ProcessLost as error:
        assert rank == survivor
        found = {"sentence": str(error), "seconds": time.monotonic() - start}
        (folder / "found.json").write_text(json.dumps(found))
        os.kill(int((folder / f"pid{1 - survivor}").read_text()), signal.SIGKILL)


def main(case: str, folder: Path, bound: float) -> None:
    """Run one case."""
    if case in ("SIGSTOP", "SIGKILL"):
        in_processes(2, training, folder, int(signal.Signals[case]), bound)
    else:
        in_processes(2, {"validating": validating, "working": working_for_long}[case], folder, bound)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
