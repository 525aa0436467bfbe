"""What a metric of generated images is given, and the registry of these metrics: one class in one file each.

A new metric is a subclass of GenerationMetric registered in GENERATION_METRICS; `mage evaluate generation` measures it
with the others, `mage tune-sampler --metric NAME` finds the sampler that it likes best, and reports describe it.

Every number carries the extractor, the reference and the number of images in its name: fd_efflite0_test10k.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mage.evaluation.metric import Description, Evaluator, Metric
from mage.evaluation.seen import GenerationProtocol, Reference, SeenImages
from mage.registry import Registry


@dataclass(frozen=True)
class Compared:
    """Generated images and what they are compared with."""

    samples: SeenImages
    reference: Reference
    extractor: str
    """Its short name."""
    protocol: GenerationProtocol = GenerationProtocol()  # noqa: RUF009  # frozen
    suffix: str = ""
    """Appended to every name, such as _real for the value of real images."""

    def name(self, word: str) -> str:
        """The full name of a metric: fd -> fd_efflite0_test10k."""
        return f"{word}_{self.extractor}_{self.reference.name}{count_name(self.samples.count)}{self.suffix}"

    @property
    def rounding(self) -> str:
        """How samples became 8 bits, as the end of a protocol's line."""
        return {None: "", "nearest": ", rounded to 8 bits", "truncate": ", truncated to 8 bits"}[self.samples.rounding]


class GenerationMetric(Evaluator[Compared]):
    """One computation, and the numbers it gives; each is called WORD_EXTRACTOR_SAMPLES, with _real for real images."""

    words: ClassVar[Mapping[str, Description]]
    """The words with which the names of its numbers begin, and what they mean; {network} and {samples} are filled in.
    With one word, the metric's own name stands for it in `mage tune-sampler --metric`."""

    @classmethod
    def descriptions(cls) -> Mapping[str, Description]:
        """Of generated and of real images."""
        real = {
            f"{word}_{{network}}_{{samples}}_real": replace(
                about,
                title=f"{about.title}, real images",
                explanation="The same for real images, {samples}: what is left when nothing is generated.",
                better="",
            )
            for word, about in cls.words.items()
        }
        return real | {f"{word}_{{network}}_{{samples}}": about for word, about in cls.words.items()}

    def named(self, compared: Compared, word: str, value: float, protocol: str) -> Metric:
        """A number of this metric under its full name, with how samples became 8 bits in its protocol."""
        return Metric(compared.name(word), value, protocol + compared.rounding, self.words[word].better)


GENERATION_METRICS: Registry[type[GenerationMetric]] = Registry(kind="metric", group="mage.generation_metrics")


def distance(title: str) -> Description:
    """Of a metric that says how far generated images lie from real ones."""
    return Description(
        title,
        "Distance between generated and real images in the features of {network}, over {samples} samples; 0 is "
        "equality. Comparable only under the same network and the same number of samples.",
        better="lower",
    )


def count_name(count: int) -> str:
    """10,000 -> 10k, 500 -> 500."""
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)
