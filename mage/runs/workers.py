"""Several processes on one machine that share a job by numbers and never talk: each makes its own part."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

Job = TypeVar("Job")


@contextmanager
def beside(work: Callable[[Job], None], jobs: Sequence[Job]) -> Iterator[None]:
    """Run `work` on each job in a process of its own while the caller does its own part; then wait for them.

    The cores are shared evenly. Raises ValueError if a process fails; stops them all if the caller does.
    work: a function at the top of a module; jobs: anything that can be pickled.
    """
    if not jobs:
        yield
        return
    threads = torch.get_num_threads()
    share = max(1, threads // (len(jobs) + 1))
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_start, args=(work, job, share), daemon=True) for job in jobs]
    try:
        torch.set_num_threads(share)
        for process in started:
            process.start()
        yield
        for process in started:
            process.join()
        failed = [str(number) for number, process in enumerate(started, 1) if process.exitcode]
        if failed:
            raise ValueError(f"process {', '.join(failed)} failed; the same command goes on with what is missing")
    finally:
        torch.set_num_threads(threads)
        for process in started:
            if process.pid is not None:  # else it was never started
                process.kill()


def _start(work: Callable[[Job], None], job: Job, threads: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    work(job)


def _end_with_parent() -> None:
    """A process that a signal ended cannot stop its children: they look after it themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
