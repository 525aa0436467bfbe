"""What a measured number is: its name, its value, how it was measured and which way is better.

Files that measure describe their numbers themselves; tables, reports, help and the tuner of samplers read it there.
"""

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Description:
    """How a report shows a number."""

    title: str
    explanation: str = ""
    """For a newcomer, in a sentence or two."""
    form: Literal["share", "decibel", "number"] = "number"
    better: Better = ""


@dataclass(frozen=True)
class Metric:
    """A number that was measured."""

    name: str
    value: float
    protocol: str
    """On what and how, in one line."""
    better: Better = ""


class NotMeasured(Exception):
    """Why a metric has no value here; the others go on."""
