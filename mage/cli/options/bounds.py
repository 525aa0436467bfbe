"""Types for integers of the command line, each with a range that is checked before the library is called.

Ranges contain every sensible value, but no number that overflows in C++ or fills the memory.
"""

import typing
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Between:
    """A range of integers, both ends included."""

    low: int
    high: int


Seed = Annotated[int, Between(0, 2**63 - 1)]
"""Seed of PyTorch's generators."""
Count = Annotated[int, Between(1, 10**9)]
"""Number of images, codes, neighbours or epochs."""
Several = Annotated[int, Between(2, 10**9)]
"""Number of images whose distribution is measured."""
Samples = Annotated[int, Between(100, 10**6)]
"""Number of samples in the demo."""
Number = Annotated[int, Between(0, 10**6)]
"""Zero or more: codes, rounds, the number of a part, a position in an image."""
BatchSize = Annotated[int, Between(1, 2**16)]
"""Images at a time."""
Shown = Annotated[int, Between(1, 10_000)]
"""Images on one page."""
Clusters = Annotated[int, Between(1, 100)]
"""Groups of images on one page."""
Steps = Annotated[int, Between(1, 10_000)]
"""Network passes per image."""
Minutes = Annotated[int, Between(1, 10_000)]
"""Time that something may take."""
MinutesOrNone = Annotated[int, Between(0, 10_000)]
"""Time that something may take; 0: it is left out."""
Workers = Annotated[int, Between(0, 1024)]
"""Worker processes in addition to the main one."""
Processes = Annotated[int, Between(1, 1024)]
"""Processes that share the work."""
Devices = Annotated[int, Between(1, 100_000)]
"""Devices of a planned training."""
Variants = Annotated[int, Between(1, 1000)]
"""Number of results in memory at the same time."""
Margin = Annotated[int, Between(0, 4096)]
"""Width of a margin in pixels."""
Side = Annotated[int, Between(1, 2**14)]
"""Height or width of an image, in pixels."""

Port = Annotated[int, Between(1, 65_535)]
"""TCP port of a server."""


def check_numbers(options: Any) -> None:
    """Raise ValueError that names the first option of a dataclass that is out of its range."""
    for name, hint in typing.get_type_hints(type(options), include_extras=True).items():
        allowed, value = _range(hint), getattr(options, name)
        if allowed is None or value is None:
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if not allowed.low <= number <= allowed.high:
                limit = f"at least {allowed.low}" if number < allowed.low else f"at most {allowed.high:,}"
                raise ValueError(f"--{name.replace('_', '-')} must be {limit}, not {number}")


def _range(hint: Any) -> Between | None:
    """The range in a type such as `Count`, `Count | None` or `tuple[Count, ...]`."""
    ranges = [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Between)]
    if ranges:
        return ranges[0]
    return next((inner for part in typing.get_args(hint) if (inner := _range(part)) is not None), None)
