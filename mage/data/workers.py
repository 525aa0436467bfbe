"""A function applied to many arguments in worker processes, which are replaced if they are killed."""

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

logger = logging.getLogger(__name__)
Argument = TypeVar("Argument")
Result = TypeVar("Result")

MOST_DEATHS = 3
"""Times that workers may be killed before one of them gives a result."""


def compute(
    function: Callable[[Argument], Result], arguments: Iterable[Argument], num_workers: int
) -> Iterator[Result]:
    """Apply `function` to every argument, in order; in worker processes if there are any.

    If a worker is killed, new ones continue, because `function` gives the same for the same argument. Raises OSError
    if workers die again and again.
    """
    if num_workers == 0:
        return map(function, arguments)
    return _in_workers(function, iter(arguments), num_workers)


def _in_workers(
    function: Callable[[Argument], Result], arguments: Iterator[Argument], num_workers: int
) -> Iterator[Result]:
    waiting: deque[Argument] = deque()  # handed to workers, without a result yet

    def handed_out() -> Iterator[Argument]:
        yield from tuple(waiting)
        for argument in arguments:
            waiting.append(argument)
            yield argument

    deaths = 0
    while deaths < MOST_DEATHS:
        # without a generator the loader would draw from the global one
        loader = DataLoader(
            _ByNumber(function),
            sampler=handed_out(),
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_unchanged,
            generator=torch.Generator(),
        )
        try:
            for result in _started(loader):
                waiting.popleft()
                deaths = 0
                if isinstance(result, _Refused):
                    raise result.error
                yield result
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            deaths += 1
            logger.warning("a process that reads images was killed (%s): new ones continue", str(error).strip())
            continue
        return
    raise OSError(
        f"processes that read images were killed {MOST_DEATHS} times in a row, mostly for want of memory: try fewer "
        "--workers, or --workers 0"
    )


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator. A dead worker is found when it is waited for, not by a signal in the midst of a step."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)


class _ByNumber(Dataset[Any]):
    """A function as a data set for torch's loader."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __getitem__(self, argument: Any) -> Any:
        try:
            return self.function(argument)
        except (ValueError, OSError) as error:
            return _Refused(error)


class _Refused(NamedTuple):
    """A user's error in a worker process: raised there, torch would wrap it into the text of a traceback."""

    error: ValueError | OSError


def _unchanged(items: Any) -> Any:
    return items
