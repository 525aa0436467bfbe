"""Worker processes on one machine, each with its own part of a job, without communication."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

Job = TypeVar("Job")


@contextmanager
def in_processes(work: Callable[[Job], None], jobs: Sequence[Job]) -> Iterator[None]:
    """Run `work` on each job in a separate process while the caller does its own part; then wait for them.

    The cores are divided evenly. Raises ValueError if a process fails; stops them all if the caller fails.
    work: a function at module level; jobs: picklable objects.
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
            raise ValueError(
                f"process {', '.join(failed)} failed; run the same command again to generate what is missing"
            )
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
    """End this process when its parent ends: a killed parent cannot stop its children."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
