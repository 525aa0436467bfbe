"""Every registered metric of samples in pixels, on one set of samples."""

from mage.evaluation import near_copies, recognisable  # noqa: F401  # they register
from mage.evaluation.metric import Measured, measure
from mage.evaluation.sample_metrics import SAMPLE_METRICS, SamplesAndData


def measure_samples(subject: SamplesAndData) -> Measured:
    """All metrics; those that need labels are left out without them."""
    return measure({name: SAMPLE_METRICS.get(name)() for name in SAMPLE_METRICS}, subject)
