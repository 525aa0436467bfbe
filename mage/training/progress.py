"""Progress of a run: a bar on a terminal, a line every minute elsewhere, with the remaining time."""

import logging
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

logger = logging.getLogger(__name__)
LINE_EVERY = 60.0
"""Seconds between lines without a terminal."""
FIRST_ESTIMATE = 5.0
"""Seconds of training before the first estimate is printed."""


class Progress:
    """Counts steps from `done` to `total`; silent unless `shown`."""

    def __init__(
        self, total: int, done: int, batch_size: int, *, shown: bool, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """clock: seconds since whenever."""
        self._total, self._done, self._batch_size, self._shown = total, done, batch_size, shown
        self._terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, unit="step", disable=not self._terminal)
        self._clock, begin = clock, clock()
        self._next, self._since, self._then = begin + FIRST_ESTIMATE, begin, done

    def step(self, loss: Callable[[], float]) -> None:
        """Count one more step. loss: called only when a line is due, because reading it waits for the device."""
        self._done += 1
        self._bar.update()
        if self._shown and not self._terminal and self._clock() >= self._next:
            value = loss()
            logger.info("step %d of %d, loss %.4f, %s", self._done, self._total, value, self.estimate())
            self._since, self._then = self._clock(), self._done
            self._next = self._since + LINE_EVERY

    def show(self, numbers: str) -> None:
        """Show the newest numbers next to the bar."""
        self._bar.set_postfix_str(numbers)

    def estimate(self) -> str:
        """Images per second since the last line, and the time left at this pace: the machine may have become busier."""
        pace = (self._done - self._then) / max(1e-9, self._clock() - self._since)
        left = (self._total - self._done) / max(1e-9, pace)
        return f"{pace * self._batch_size:.0f} images/s, about {duration(left)} left"

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()


def duration(seconds: float) -> str:
    """Seconds as a readable string: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
