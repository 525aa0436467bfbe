"""A computation that tells its steps, as an iterator over them that can be left at any step.

The computation runs in a thread and waits at each step until the last one was taken, so that whoever stops iterating
stops the computation, too.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from mage.sampling.decode import OnStep
from mage.web.limits import TooLong

WAIT = 0.05
"""Seconds between two looks whether the iterator was left."""


class Step(NamedTuple):
    """The grids before a step of the sampler."""

    number: int
    tokens: Tensor


class _Left(Exception):
    pass


def steps_of(work: Callable[[OnStep], Any], *, seconds: float) -> Iterator[Step | Any]:
    """Yield a Step before each step of `work(on_step)`, and at last its result. Raises what `work` raises.

    seconds: time that it may take, waiting included. Raises TooLong after it.
    """
    told: queue.Queue[Step] = queue.Queue(maxsize=1)
    result: list[Any] = []
    failed: list[Exception] = []
    left, end = threading.Event(), time.monotonic() + seconds

    def hand_over(number: int, tokens: Tensor) -> None:
        while not left.is_set():
            if time.monotonic() > end:
                raise TooLong(f"this took longer than {seconds:.0f} seconds: ask for fewer images or steps")
            try:
                return told.put(Step(number, tokens), timeout=WAIT)
            except queue.Full:
                continue
        raise _Left

    def run() -> None:
        try:
            result.append(work(hand_over))
        except _Left:
            pass
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive() or not told.empty():
            try:
                yield told.get(timeout=WAIT)
            except queue.Empty:
                continue
        if failed:
            raise failed[0]
        yield result[0]
    finally:
        left.set()
