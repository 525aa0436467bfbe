"""How a run shows that it goes on: a bar on a terminal, a line a minute elsewhere, and the time that is left."""

import logging
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

logger = logging.getLogger(__name__)
LINE_EVERY = 60.0
"""Seconds between lines where there is no terminal."""
FIRST_ESTIMATE = 5.0
"""Seconds of training after which the first estimate is told."""


class Progress:
    """Counts steps from `done` to `total`; silent unless `shown`."""

    def __init__(
        self, total: int, done: int, batch_size: int, *, shown: bool, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """clock: seconds since whenever."""
        self._total, self._done, self._batch_size, self._shown = total, done, batch_size, shown
        self._terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, unit="step", disable=not self._terminal)
        self._clock, self._begin, self._first = clock, clock(), done
        self._next = self._begin + FIRST_ESTIMATE

    def step(self, loss: Callable[[], float]) -> None:
        """One step more. loss: asked for only where a line is due, because reading it waits for the device."""
        self._done += 1
        self._bar.update()
        if self._shown and not self._terminal and self._clock() >= self._next:
            self._next = self._clock() + LINE_EVERY
            logger.info("step %d of %d, loss %.4f, %s", self._done, self._total, loss(), self.estimate())

    def show(self, text: str) -> None:
        """Put the newest numbers behind the bar."""
        self._bar.set_postfix_str(text)

    def estimate(self) -> str:
        """Pace and time left, as words."""
        pace = (self._done - self._first) / max(1e-9, self._clock() - self._begin)
        left = (self._total - self._done) / max(1e-9, pace)
        return f"{pace * self._batch_size:.0f} images/s, about {duration(left)} left"

    def close(self) -> None:
        """No more steps."""
        self._bar.close()


def duration(seconds: float) -> str:
    """Seconds as people say them: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
