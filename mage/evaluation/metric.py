"""Measured numbers: what a number is called, how it was measured, which way is better, and who measures it.

Whatever measures is an Evaluator: a class that names and describes its numbers and yields them. Tables, reports, help
and the tuner of samplers read names and descriptions there: a new metric touches the file of its class only.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar

Better = Literal["higher", "lower", ""]
Subject = TypeVar("Subject")
LONG_NAMES = {"efflite0": "EfficientNet-Lite0", "inception": "Inception"}
"""Of networks that metrics carry in their names."""


@dataclass(frozen=True)
class Description:
    """How a report shows a number."""

    title: str
    explanation: str = ""
    """For a newcomer, in a sentence or two."""
    form: Literal["share", "decibel", "number"] = "number"
    better: Better = ""
    bar: bool = False
    """Whether reports show it among the bars of accuracies."""


@dataclass(frozen=True)
class Metric:
    """A number that was measured."""

    name: str
    value: float
    protocol: str
    """On what and how, in one line."""
    better: Better = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Numbers behind it, as plain values for JSON: the draws of a mean, the kinds of corruption."""


class NotMeasured(Exception):
    """Why a metric has no value here; the others go on. Without a reason, nobody asked for it."""


class Evaluator(Generic[Subject]):
    """One metric or protocol: a computation, and the numbers it gives."""

    metrics: ClassVar[Mapping[str, Description]]
    """Its numbers by name. Parts of a name that vary stand in braces, fewshot{count}_accuracy, and may be repeated in
    title and explanation."""

    def measure(self, subject: Subject) -> Iterator[Metric]:
        """The numbers. Raises NotMeasured where there can be none, with the reason."""
        raise NotImplementedError

    def warning(self, subject: Subject) -> str:
        """Why the numbers should not be trusted; "" if they can be. Called only if `measure` gave its numbers."""
        return ""

    @classmethod
    def descriptions(cls) -> Mapping[str, Description]:
        """Names, as in `metrics`, and what they mean."""
        return cls.metrics

    def metric(self, name: str, value: float, protocol: str, **details: Any) -> Metric:
        """A number of this evaluator, with the direction that its description states."""
        about = describe(name, self.descriptions())
        return Metric(name, value, protocol, about.better if about else "", details)


@dataclass
class Measured:
    """Numbers by name, in one line each how they were measured, and what is to be said about them."""

    metrics: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What stands behind some of the numbers."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds of each evaluator."""
    left_out: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    warnings: list[str] = field(default_factory=list)
    """Which numbers should not be trusted, and why."""

    def add(self, metric: Metric) -> None:
        """One more number."""
        self.metrics[metric.name], self.protocols[metric.name] = metric.value, metric.protocol
        if metric.details:
            self.details[metric.name] = dict(metric.details)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def measure(
    evaluators: Mapping[str, Evaluator[Subject]], subject: Subject, *, on_start: Callable[[str], None] | None = None
) -> Measured:
    """All numbers of some evaluators, one after the other; what cannot be measured is noted and the others go on.

    on_start: called with the name of each evaluator before it begins.
    """
    measured = Measured()
    for name, evaluator in evaluators.items():
        if on_start is not None:
            on_start(name)
        start = time.perf_counter()
        try:
            for metric in evaluator.measure(subject):
                measured.add(metric)
        except NotMeasured as reason:
            if str(reason):
                measured.left_out.append(str(reason))
        else:
            if warning := evaluator.warning(subject):
                measured.warnings.append(warning)
        measured.timings[name] = time.perf_counter() - start
    return measured


def describe(name: str, descriptions: Mapping[str, Description]) -> Description | None:
    """The description of a metric, its braces filled in; None where there is none."""
    if name in descriptions:
        return descriptions[name]
    for template, about in descriptions.items():
        parts = _pattern(template).fullmatch(name)
        if parts is not None:
            filled = {key: LONG_NAMES.get(value, value) for key, value in parts.groupdict().items()}
            return replace(about, title=about.title.format(**filled), explanation=about.explanation.format(**filled))
    return None


def _pattern(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", template)  # every other piece is the name of a part in braces
    return re.compile("".join(f"(?P<{piece}>.+?)" if odd % 2 else re.escape(piece) for odd, piece in enumerate(pieces)))
