"""Inception Score: confidence of a classifier in single images, and variety of their classes (Salimans et al. 2016).

With another classifier than Inception it has another name and other values.
"""

from collections.abc import Iterator
from typing import ClassVar

from mage.evaluation.generation_metrics import GENERATION_METRICS, Compared, GenerationMetric
from mage.evaluation.metric import Description, Metric, NotMeasured


@GENERATION_METRICS.register("is")
class InceptionScore(GenerationMetric):
    """Inception Score; needs an extractor that gives class scores (Salimans et al. 2016)."""

    words: ClassVar = {
        "is": Description(
            "Inception Score",
            "High where a classifier, {network}, is sure of each of {samples} samples and finds many classes among "
            "them; 1 is the least. Comparable only under the same network.",
            better="higher",
        )
    }

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """Mean over the parts of the images."""
        if compared.samples.scores is None:
            reason = "the extractor gives no class scores, or there are too few images"
            raise NotMeasured(f"{compared.name('is')}: {reason}")
        score = compared.samples.scores.score()
        images = f"{compared.samples.count:,} images in {compared.protocol.parts} parts"
        yield self.named(compared, "is", score.mean, f"{images}, +- {score.deviation:.3g}")
