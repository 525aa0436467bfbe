"""A computation as an iterator over its steps: left at any step, or out of time, it stops."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mage.web.limits import TooLong
from mage.web.steps import Step, steps_of


def counted(log: list[int], steps: int = 5, pause: float = 0.0) -> Callable[[Any], str]:
    def work(on_step: Any) -> str:
        for number in range(steps):
            on_step(number, torch.full((1,), number))
            log.append(number)
            time.sleep(pause)
        return "done"

    return work


def test_steps_come_in_order_and_the_result_last() -> None:
    states = list(steps_of(counted([]), seconds=10))
    assert [state.number for state in states[:-1]] == [0, 1, 2, 3, 4]
    assert all(isinstance(state, Step) and int(state.tokens) == state.number for state in states[:-1])
    assert states[-1] == "done"


def test_leaving_the_iterator_stops_the_work() -> None:
    log: list[int] = []
    before = threading.active_count()
    states = steps_of(counted(log, steps=1000), seconds=10)
    next(states)
    next(states)
    states.close()
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.02)
    assert threading.active_count() == before
    assert len(log) <= 3


def test_work_waits_for_whoever_takes_its_steps() -> None:
    log: list[int] = []
    states = steps_of(counted(log), seconds=10)
    next(states)
    time.sleep(0.3)
    assert len(log) <= 2
    states.close()


def test_work_that_takes_too_long_ends_with_a_sentence() -> None:
    with pytest.raises(TooLong, match="fewer images or steps"):
        list(steps_of(counted([], steps=1000, pause=0.05), seconds=0.2))


def test_time_also_ends_for_somebody_who_takes_no_more_steps() -> None:
    states = steps_of(counted([]), seconds=0.2)
    next(states)
    time.sleep(0.5)
    with pytest.raises(TooLong):
        list(states)


def test_what_the_work_raises_is_raised() -> None:
    def work(on_step: Any) -> None:
        raise ValueError("no such class")

    with pytest.raises(ValueError, match="no such class"):
        list(steps_of(work, seconds=10))
