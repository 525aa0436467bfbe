"""Ctrl-C and SIGTERM during training: finish the step, save, stop; all processes at the same step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mage import distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptFlag:
    """Whether this process, or any of its fellows, was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def is_set_anywhere(self) -> bool:
        """The same answer in every process; all of them must ask, once a step."""
        return distributed.any_process(self.signal is not None)


@contextmanager
def interrupt_flag() -> Iterator[InterruptFlag]:
    """Ctrl-C or SIGTERM sets the flag, so that the step in progress can be finished and saved.

    A second Ctrl-C stops at once; launchers repeat SIGTERM, which changes nothing.
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
