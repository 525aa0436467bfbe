"""How good generated images are, as the field measures it: every registered metric of one comparison."""

from dataclasses import dataclass, field

from mage.evaluation.generation_metrics import GENERATION_METRICS, Compared
from mage.evaluation.metric import Metric, NotMeasured
from mage.evaluation.seen import GenerationProtocol, Reference, SeenImages


@dataclass
class GenerationQuality:
    """Metrics by name, and in one line each how they were measured."""

    metrics: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    warnings: list[str] = field(default_factory=list)
    """Which numbers should not be trusted, and why."""

    def add(self, metric: Metric) -> None:
        """One more number."""
        self.metrics[metric.name], self.protocols[metric.name] = metric.value, metric.protocol


def compare(
    samples: SeenImages,
    reference: Reference,
    extractor: str,
    *,
    protocol: GenerationProtocol = GenerationProtocol(),  # noqa: B008  # frozen
    suffix: str = "",
) -> GenerationQuality:
    """All metrics of generated images against a reference.

    extractor: its short name; suffix: appended to every name, such as _real for the value of real images.
    """
    compared, quality = Compared(samples, reference, extractor, protocol, suffix), GenerationQuality()
    for name in GENERATION_METRICS:
        metric = GENERATION_METRICS.get(name)()
        try:
            for measured in metric.measure(compared):
                quality.add(measured)
        except NotMeasured as reason:
            quality.left_out.append(str(reason))
        if warning := metric.warning(compared):
            quality.warnings.append(warning)
    return quality
