"""Ctrl-C and SIGTERM during training: finish the step, save, stop; all processes at the same step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mage import distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptFlag:
    """Whether this or another process of the run received a stop signal."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def is_set_anywhere(self) -> bool:
        """The same result in every process; all of them must call it, once a step."""
        return distributed.any_process(self.signal is not None)


@contextmanager
def interrupt_flag() -> Iterator[InterruptFlag]:
    """Context in which Ctrl-C or SIGTERM sets the flag, so that the current step can be finished and saved.

    A second Ctrl-C stops at once; a repeated SIGTERM, as launchers send it, does not.
    """
    flag = InterruptFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handle(number: int, frame: Any) -> None:
        if flag.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.signal = number

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
