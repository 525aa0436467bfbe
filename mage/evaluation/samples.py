"""All registered metrics of samples in pixels."""

from mage.evaluation import authenticity, near_copies, recognisable  # noqa: F401  # they register
from mage.evaluation.metric import Measured, measure
from mage.evaluation.sample_metrics import SAMPLE_METRICS, SamplesAndData


def measure_samples(subject: SamplesAndData) -> Measured:
    """All metrics; without labels, those that need them are left out."""
    return measure({name: SAMPLE_METRICS.get(name)() for name in SAMPLE_METRICS}, subject)
