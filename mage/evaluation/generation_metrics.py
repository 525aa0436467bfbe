"""Input of the metrics of generated images, and the registry of these metrics.

A new metric is a subclass of GenerationMetric registered in GENERATION_METRICS; `mage evaluate generation` measures it
with the others, `mage tune-sampler --metric NAME` chooses a sampler by it, and reports describe it.

Names of metrics contain extractor, reference and number of images: fd_efflite0_test10k.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mage.evaluation.metric import Description, Evaluator, Metric
from mage.evaluation.seen import GenerationProtocol, Reference, SeenImages
from mage.registry import Registry


@dataclass(frozen=True)
class Compared:
    """Features of generated images and of the reference."""

    samples: SeenImages
    reference: Reference
    extractor: str
    """Short name of the extractor."""
    protocol: GenerationProtocol = GenerationProtocol()  # noqa: RUF009  # frozen
    suffix: str = ""
    """Appended to every name, such as _real for real images in place of generated ones."""

    def name(self, word: str) -> str:
        """The full name of a metric: fd -> fd_efflite0_test10k."""
        return f"{word}_{self.extractor}_{self.reference.name}{count_name(self.samples.count)}{self.suffix}"

    @property
    def rounding(self) -> str:
        """Conversion of the samples to 8 bits, to be appended to a protocol."""
        return {None: "", "nearest": ", rounded to 8 bits", "truncate": ", truncated to 8 bits"}[self.samples.rounding]


class GenerationMetric(Evaluator[Compared]):
    """A metric of generated images. Its numbers are called WORD_EXTRACTOR_SAMPLES, and for real images end in _real."""

    words: ClassVar[Mapping[str, Description]]
    """First words of the names of its numbers, with descriptions; {network} and {samples} are filled in. A metric with
    one number may also be given by its registered name in `mage tune-sampler --metric`."""

    @classmethod
    def descriptions(cls) -> Mapping[str, Description]:
        """Descriptions for generated and for real images."""
        real = {
            f"{word}_{{network}}_{{samples}}_real": replace(
                description,
                title=f"{description.title}, real images",
                explanation="The same for real images, {samples}: what is left when nothing is generated.",
                better="",
            )
            for word, description in cls.words.items()
        }
        return real | {f"{word}_{{network}}_{{samples}}": description for word, description in cls.words.items()}

    def named(self, compared: Compared, word: str, value: float, protocol: str) -> Metric:
        """A number of this metric under its full name; conversion to 8 bits is added to its protocol."""
        return Metric(compared.name(word), value, protocol + compared.rounding, self.words[word].better)


GENERATION_METRICS: Registry[type[GenerationMetric]] = Registry(kind="metric", group="mage.generation_metrics")


def distance(title: str) -> Description:
    """Description of a distance between generated and real images."""
    return Description(
        title,
        "Distance between generated and real images in the features of {network}, over {samples} samples; 0 is "
        "equality. Comparable only under the same network and the same number of samples.",
        better="lower",
    )


def count_name(count: int) -> str:
    """10,000 -> 10k, 500 -> 500."""
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)
