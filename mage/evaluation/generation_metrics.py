"""The metrics of generated images, by name: one class each, which measures and says what its numbers mean.

A new metric is a subclass of GenerationMetric registered in GENERATION_METRICS; `mage evaluate generation` measures it
with the others, `mage tune-sampler --metric NAME` finds the sampler that it likes best, and reports describe it.

Every number carries the extractor, the reference and the number of images in its name: fd_efflite0_test10k.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from mage.evaluation.frechet import frechet_distance, too_few
from mage.evaluation.kernel_distance import kernel_distance
from mage.evaluation.manifold import manifold
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.evaluation.seen import GenerationProtocol, Reference, SeenImages
from mage.registry import Registry


@dataclass(frozen=True)
class Compared:
    """Generated images beside what they are compared with."""

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


class GenerationMetric:
    """One computation, and the numbers it gives."""

    words: ClassVar[Mapping[str, Description]]
    """The words with which the names of its numbers begin, and what they mean; {network} and {samples} are filled in.
    With one word, the metric's own name stands for it in `mage tune-sampler --metric`."""

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """The numbers. Raises NotMeasured where there can be none, with the reason."""
        raise NotImplementedError

    def warning(self, compared: Compared) -> str:
        """Why the numbers should not be trusted; "" where they may be."""
        return ""

    def metric(self, compared: Compared, word: str, value: float, protocol: str) -> Metric:
        """A number of this metric, named and with its direction."""
        return Metric(compared.name(word), value, protocol + compared.rounding, self.words[word].better)


GENERATION_METRICS: Registry[type[GenerationMetric]] = Registry(kind="metric", group="mage.generation_metrics")


def _distance(title: str) -> Description:
    return Description(
        title,
        "Distance between generated and real images in the features of {network}, over {samples} samples; 0 is "
        "equality. Comparable only under the same network and the same number of samples.",
        better="lower",
    )


@GENERATION_METRICS.register("frechet")
class FrechetDistance(GenerationMetric):
    """Of means and covariances of features; on the FID's Inception it is the FID (Heusel et al. 2017)."""

    words: ClassVar[Mapping[str, Description]] = {"fd": _distance("Fréchet distance"), "fid": _distance("FID")}

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """The distance."""
        n, m = compared.samples.count, compared.reference.moments.count
        images = f"{n:,} images against {f'{m:,} of ' if m else ''}{compared.reference.name}"
        value = frechet_distance(compared.samples.moments, compared.reference.moments)
        yield self.metric(compared, self._word(compared), value, images)

    def warning(self, compared: Compared) -> str:
        """Of too few images for a covariance."""
        moments = compared.samples.moments, compared.reference.moments
        return too_few(compared.name(self._word(compared)), *moments)

    def _word(self, compared: Compared) -> str:
        return "fid" if compared.extractor == "inception" else "fd"


@GENERATION_METRICS.register("kernel")
class KernelDistance(GenerationMetric):
    """The squared maximum mean discrepancy; on the FID's Inception it is the KID (Binkowski et al. 2018)."""

    words: ClassVar[Mapping[str, Description]] = {"kd": _distance("Kernel distance"), "kid": _distance("KID")}

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """The mean over random subsets."""
        word, protocol = "kid" if compared.extractor == "inception" else "kd", compared.protocol
        if compared.reference.features is None:
            raise NotMeasured(f"{compared.name(word)}: the reference holds no features of single images")
        x, y = compared.samples.features, compared.reference.features
        size = min(protocol.subset_size, len(x), len(y))
        distance = kernel_distance(x, y, subsets=protocol.subsets, subset_size=size, seed=protocol.seed)
        subsets = f"{protocol.subsets} subsets of {size:,} of {len(x):,} and {len(y):,} images"
        yield self.metric(compared, word, distance.mean, f"{subsets}, +- {distance.deviation:.3g}")


@GENERATION_METRICS.register("is")
class InceptionScore(GenerationMetric):
    """Needs an extractor that knows classes (Salimans et al. 2016)."""

    words: ClassVar[Mapping[str, Description]] = {
        "is": Description(
            "Inception Score",
            "High where a classifier, {network}, is sure of each of {samples} samples and finds many classes among "
            "them; 1 is the least. Comparable only under the same network.",
            better="higher",
        )
    }

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """The mean over parts of the images."""
        if compared.samples.scores is None:
            reason = "the extractor gives no class scores, or there are too few images"
            raise NotMeasured(f"{compared.name('is')}: {reason}")
        score = compared.samples.scores.score()
        images = f"{compared.samples.count:,} images in {compared.protocol.parts} parts"
        yield self.metric(compared, "is", score.mean, f"{images}, +- {score.deviation:.3g}")


@GENERATION_METRICS.register("manifold")
class ManifoldShares(GenerationMetric):
    """Fidelity and variety apart (Kynkaanniemi et al. 2019; Naeem et al. 2020)."""

    words: ClassVar[Mapping[str, Description]] = {
        "precision": Description(
            "Precision",
            "Share of {samples} samples that lie among real images in the features of {network}: fidelity.",
            "share",
            "higher",
        ),
        "recall": Description(
            "Recall",
            "Share of real images that lie among {samples} samples in the features of {network}: variety.",
            "share",
            "higher",
        ),
        "density": Description(
            "Density",
            "In how many neighbourhoods of real images a sample lies, in the features of {network}; about 1 for real "
            "images ({samples} samples).",
            better="higher",
        ),
        "coverage": Description(
            "Coverage",
            "Share of real images in whose neighbourhood one of {samples} samples lies, in the features of {network}.",
            "share",
            "higher",
        ),
    }

    def measure(self, compared: Compared) -> Iterator[Metric]:
        """All four."""
        protocol, kin = compared.protocol, f"{compared.name('precision')}, recall, density and coverage"
        if compared.reference.features is None:
            raise NotMeasured(f"{kin}: the reference holds no features of single images")
        x, y = compared.samples.features, compared.reference.features
        most = max(protocol.neighbours, protocol.density_neighbours)
        if min(len(x), len(y)) <= most:
            raise NotMeasured(f"{kin}: {min(len(x), len(y))} images have no {most} neighbours")
        shares = manifold(x, y, neighbours=protocol.neighbours, density_neighbours=protocol.density_neighbours)
        for word in self.words:
            k = protocol.neighbours if word in ("precision", "recall") else protocol.density_neighbours
            images = f"{len(x):,} images against {len(y):,}"
            yield self.metric(compared, word, getattr(shares, word), f"{images}, {k} neighbours")


def one_number(asked: str, compared: Compared) -> Metric:
    """The metric called `asked`: by its registered name, or by the word that its name begins with (recall).

    Raises ValueError where there is none of that name, it gives several numbers, or none can be measured here.
    """
    if asked in GENERATION_METRICS:
        numbers = _measured(GENERATION_METRICS.get(asked)(), compared)
        if len(numbers) == 1:
            return numbers[0]
        raise ValueError(f"{asked} gives several numbers: name one of {', '.join(_word(one) for one in numbers)}")
    for kind in map(GENERATION_METRICS.get, GENERATION_METRICS):
        if asked in kind.words:
            for one in _measured(kind(), compared):
                if _word(one) == asked:
                    return one
    words = [word for kind in map(GENERATION_METRICS.get, GENERATION_METRICS) for word in kind.words]
    raise ValueError(f"no metric {asked!r} with {compared.extractor}; there are {', '.join(dict.fromkeys(words))}")


def _measured(metric: GenerationMetric, compared: Compared) -> list[Metric]:
    try:
        return list(metric.measure(compared))
    except NotMeasured as reason:
        raise ValueError(f"not measured: {reason}") from None


def _word(metric: Metric) -> str:
    return metric.name.split("_")[0]


def count_name(count: int) -> str:
    """10,000 -> 10k, 500 -> 500."""
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)
