"""Functions in worker processes: order, and what happens when a worker is killed."""

import itertools
import logging
import os
import signal
from pathlib import Path

import pytest

from mage.data.workers import MOST_DEATHS, compute


class Mortal:
    """Squares numbers; the first worker that comes to a deadly one is killed, as for want of memory."""

    def __init__(self, folder: Path, deadly: tuple[int, ...], times: int = 1) -> None:
        self.folder, self.deadly, self.times = folder, deadly, times

    def __call__(self, number: int) -> int:
        graves = list(self.folder.glob(f"{number}-*"))
        if number in self.deadly and len(graves) < self.times:
            (self.folder / f"{number}-{len(graves)}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_workers_are_replaced_and_nothing_is_lost_or_doubled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    with caplog.at_level(logging.WARNING):
        found = compute(Mortal(tmp_path, (0, 5)), itertools.count(), workers)
        assert list(itertools.islice(found, 12)) == [number**2 for number in range(12)]
    assert caplog.text.count("new ones continue") == 2


def test_workers_that_are_killed_again_and_again_end_in_one_sentence(tmp_path: Path) -> None:
    found = compute(Mortal(tmp_path, (0,), times=99), range(3), 1)
    with pytest.raises(OSError, match=rf"killed {MOST_DEATHS} times in a row.*fewer --workers"):
        next(found)


def test_a_workers_own_error_is_not_taken_for_its_death() -> None:
    with pytest.raises(ZeroDivisionError):
        list(compute(reciprocal, [1, 0], 1))


def test_a_users_error_in_a_worker_stays_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"^numbers are positive, not -1$"):
        list(compute(root, [4, -1], 1))


def root(number: int) -> float:
    if number < 0:
        raise ValueError(f"numbers are positive, not {number}")
    return number**0.5


def reciprocal(number: int) -> float:
    return 1 / number
