"""Frechet distance of reconstructions to their originals; with the Inception network of the FID it is the rFID.

Names of metrics contain network, reference and number of images, as for generated images: rfd_efflite0_test10k.
"""

from collections.abc import Iterator
from typing import ClassVar

from mage import images
from mage.evaluation.feature_statistics import FeatureStatistics
from mage.evaluation.frechet import frechet_distance, too_few
from mage.evaluation.generation_metrics import count_name
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.evaluation.tokenizer_metrics import (
    TOKENIZER_METRICS,
    Reconstructions,
    Tokenized,
    TokenizerMetric,
    TokenizerProtocol,
)

_EXPLANATION = (
    "Distance between reconstructions and their originals in the features of {network}, over {samples} images; 0 is "
    "equality, and generated images can hardly come nearer than this."
)


@TOKENIZER_METRICS.register("distance")
class ReconstructionDistance(TokenizerMetric):
    """One distance for each extractor of the protocol."""

    metrics: ClassVar = {
        "rfd_{network}_{samples}": Description(
            "Fréchet distance of reconstructions ({network})", _EXPLANATION, better="lower"
        ),
        "rfid_{network}_{samples}": Description("rFID", _EXPLANATION, better="lower"),
    }

    def __init__(self, protocol: TokenizerProtocol) -> None:
        self._protocol = protocol
        self._originals = {
            extractor.name: FeatureStatistics(extractor.fingerprint)
            for extractor in protocol.extractors
            if extractor.name not in protocol.reference
        }
        self._reconstructions = {
            extractor.name: FeatureStatistics(extractor.fingerprint) for extractor in protocol.extractors
        }

    def update(self, batch: Reconstructions) -> None:
        """Add the features of the next images, both rounded to 8 bits as in a PNG."""
        for extractor in self._protocol.extractors:
            seen = extractor(images.to_uint8(batch.reconstructions))
            self._reconstructions[extractor.name].update(seen.features)
            if extractor.name in self._originals:
                self._originals[extractor.name].update(extractor(images.to_uint8(batch.originals)).features)

    def measure(self, tokenized: Tokenized) -> Iterator[Metric]:
        """One distance per extractor; statistics of the originals are added to the protocol for further tokenizers."""
        count = len(tokenized.ids)
        if count < 2 or not self._reconstructions:
            raise NotMeasured
        self._protocol.reference.update(self._originals)
        for name, statistics in self._reconstructions.items():
            distance = frechet_distance(self._protocol.reference[name], statistics)
            protocol = f"{count:,} reconstructions against the same {count:,} images; 0 is perfect"
            yield self.metric(self._name(name, tokenized), distance, protocol)

    def warning(self, tokenized: Tokenized) -> str:
        """Warns of distances with too few images for a covariance."""
        warnings = (
            too_few(self._name(name, tokenized), statistics) for name, statistics in self._reconstructions.items()
        )
        return "; ".join(filter(None, warnings))

    def _name(self, extractor: str, tokenized: Tokenized) -> str:
        word = "rfid" if extractor == "inception" else "rfd"
        return f"{word}_{extractor}_{self._protocol.reference_name}{count_name(len(tokenized.ids))}"
