"""All registered metrics of generated images, and one chosen metric for tuning."""

from mage.evaluation import authenticity, frechet, inception_score, kernel_distance, manifold  # noqa: F401  # they register
from mage.evaluation.generation_metrics import GENERATION_METRICS, Compared, GenerationMetric
from mage.evaluation.metric import Measured, Metric, NotMeasured, measure
from mage.evaluation.seen import GenerationProtocol, Reference, SeenImages


def compare(
    samples: SeenImages,
    reference: Reference,
    extractor: str,
    *,
    protocol: GenerationProtocol = GenerationProtocol(),  # noqa: B008  # frozen
    suffix: str = "",
) -> Measured:
    """All metrics of generated images against a reference.

    extractor: short name for the names of metrics. suffix: appended to them, such as _real for real images.
    """
    metrics = {name: GENERATION_METRICS.get(name)() for name in GENERATION_METRICS}
    return measure(metrics, Compared(samples, reference, extractor, protocol, suffix))


def one_number(metric: str, compared: Compared) -> Metric:
    """One number, by the registered name of its metric or by the first word of its own name, such as recall.

    Raises ValueError for an unknown name, a metric with several numbers, or one that cannot be computed.
    """
    if metric in GENERATION_METRICS:
        kind = GENERATION_METRICS.get(metric)
        numbers = _measured(metric, kind(), compared)
        if len(numbers) == 1:
            return numbers[0]
        names = {number.name for number in numbers}
        words = [word for word in kind.words if compared.name(word) in names]
        raise ValueError(f"{metric} gives {len(numbers)} numbers: name one of {', '.join(words)}")
    for kind in map(GENERATION_METRICS.get, GENERATION_METRICS):
        if metric in kind.words:
            for number in _measured(metric, kind(), compared):
                if number.name == compared.name(metric):
                    return number
    words = [word for kind in map(GENERATION_METRICS.get, GENERATION_METRICS) for word in kind.words]
    raise ValueError(f"no metric {metric!r} with {compared.extractor}; there are {', '.join(dict.fromkeys(words))}")


def _measured(name: str, metric: GenerationMetric, compared: Compared) -> list[Metric]:
    try:
        return list(metric.measure(compared))
    except NotMeasured as reason:
        raise ValueError(f"not measured: {str(reason) or name}") from None
