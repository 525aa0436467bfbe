"""Metrics: name, value, protocol and direction of a measured number, and the evaluators that compute them.

An Evaluator is a class that names, describes and yields its metrics. Tables, reports, help and the tuner of samplers
read names and descriptions from it, so that a new metric touches the file of its class only.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar

Better = Literal["higher", "lower", ""]
Subject = TypeVar("Subject")
LONG_NAMES = {"efflite0": "EfficientNet-Lite0", "inception": "Inception"}
"""Feature networks whose short names are parts of metric names, as they are written in titles."""
PARTS = {"network": "|".join((*LONG_NAMES, "judge", ".+")), "samples": "(?!real$).+?"}
"""What may stand for these parts of a name; others are as short as possible. Names of further networks, such as timm's,
hold underscores of their own, and those of samples may end with _real."""


@dataclass(frozen=True)
class Description:
    """Title, explanation and format of a metric in a report."""

    title: str
    explanation: str = ""
    """One or two sentences for a newcomer."""
    form: Literal["share", "decibel", "number"] = "number"
    better: Better = ""
    bar: bool = False
    """Whether reports draw it in the chart of accuracies."""


@dataclass(frozen=True)
class Metric:
    """A measured number."""

    name: str
    value: float
    protocol: str
    """Data and method of the measurement, in one line."""
    better: Better = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Intermediate results as plain values for JSON, such as the draws of a mean or accuracy per corruption."""


class NotMeasured(Exception):
    """A metric cannot be computed for this subject, with the reason; without one, it was not requested."""


class Evaluator(Generic[Subject]):
    """A metric or protocol: a computation that gives one or more numbers."""

    metrics: ClassVar[Mapping[str, Description]]
    """Descriptions by name. Variable parts of a name are in braces, such as fewshot{count}_accuracy, and may be used in
    title and explanation."""

    def measure(self, subject: Subject) -> Iterator[Metric]:
        """The numbers. Raises NotMeasured, with the reason, if they cannot be computed."""
        raise NotImplementedError

    def warning(self, subject: Subject) -> str:
        """Reason not to trust the numbers, or "". Called after `measure` has given its numbers."""
        return ""

    @classmethod
    def descriptions(cls) -> Mapping[str, Description]:
        """Names, as in `metrics`, with their descriptions."""
        return cls.metrics

    def metric(self, name: str, value: float, protocol: str, **details: Any) -> Metric:
        """A metric of this evaluator; its direction is taken from its description."""
        description = describe(name, self.descriptions())
        return Metric(name, value, protocol, description.better if description else "", details)


@dataclass
class Measured:
    """Values and protocols of metrics by name, with details, timings and warnings."""

    metrics: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Details of the metrics that have any."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds of each evaluator."""
    left_out: list[str] = field(default_factory=list)
    """Reasons for metrics that could not be computed."""
    warnings: list[str] = field(default_factory=list)
    """Reasons not to trust some of the numbers."""

    def add(self, metric: Metric) -> None:
        """Add a metric."""
        self.metrics[metric.name], self.protocols[metric.name] = metric.value, metric.protocol
        if metric.details:
            self.details[metric.name] = dict(metric.details)

    def include(self, other: "Measured") -> None:
        """Add metrics, protocols, details and warnings of another measurement."""
        self.metrics |= other.metrics
        self.protocols |= other.protocols
        self.details |= other.details
        self.warnings += other.warnings

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def measure(
    evaluators: Mapping[str, Evaluator[Subject]], subject: Subject, *, on_start: Callable[[str], None] | None = None
) -> Measured:
    """Run evaluators in turn. Reasons of those that raise NotMeasured are collected in `left_out`.

    on_start: called with the name of each evaluator before it starts.
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
    """The description of a metric with its variable parts filled in; None if there is none."""
    if name in descriptions:
        return descriptions[name]
    for template, description in descriptions.items():
        parts = _pattern(template).fullmatch(name)
        if parts is not None:
            filled = {key: LONG_NAMES.get(value, value) for key, value in parts.groupdict().items()}
            title, explanation = description.title.format(**filled), description.explanation.format(**filled)
            return replace(description, title=title, explanation=explanation)
    return None


def _pattern(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", template)  # every second piece is the name of a variable part
    return re.compile(
        "".join(
            f"(?P<{piece}>{PARTS.get(piece, '.+?')})" if odd % 2 else re.escape(piece)
            for odd, piece in enumerate(pieces)
        )
    )
