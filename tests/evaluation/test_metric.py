"""Evaluators in turn: what is left out, what is warned of, and the one number that a sampler is tuned by."""

from collections.abc import Iterator
from typing import ClassVar

import pytest
import torch

from mage import rng
from mage.evaluation.extractors import Seen
from mage.evaluation.generation import one_number
from mage.evaluation.generation_metrics import GENERATION_METRICS, Compared, GenerationMetric
from mage.evaluation.metric import Description, Evaluator, Metric, NotMeasured, describe, measure
from mage.evaluation.seen import Reference, SeenImages


class Length(Evaluator[str]):
    metrics: ClassVar = {"length": Description("Length", better="higher")}

    def measure(self, subject: str) -> Iterator[Metric]:
        if not subject:
            raise NotMeasured("length: there is no text")
        yield self.metric("length", len(subject), "in letters", words=len(subject.split()))

    def warning(self, subject: str) -> str:
        return "" if len(subject) > 5 else "length: the text is short"


def test_numbers_come_with_direction_protocol_details_and_seconds() -> None:
    begun: list[str] = []
    measured = measure({"length": Length()}, "two words", on_start=begun.append)
    assert (measured.metrics, measured.protocols) == ({"length": 9}, {"length": "in letters"})
    assert measured.details == {"length": {"words": 2}}
    assert Length().metric("length", 1, "").better == "higher"
    assert begun == list(measured.timings) == ["length"]


def test_only_what_was_measured_is_warned_of() -> None:
    assert measure({"length": Length()}, "short").warnings == ["length: the text is short"]
    missing = measure({"length": Length()}, "")
    assert (missing.left_out, missing.warnings) == (["length: there is no text"], [])


def test_names_with_parts_are_described_with_them() -> None:
    templates = {"fd_{network}_{samples}": Description("FD ({network})", "Over {samples} samples.")}
    about = describe("fd_efflite0_test10k", templates)
    assert about == Description("FD (EfficientNet-Lite0)", "Over test10k samples.")
    assert describe("fd_efflite0", templates) is None
    for samples in ("test10k", "test10k_real"):
        long = describe(f"fd_vit_base_patch16_224_{samples}", templates)
        assert long == Description("FD (vit_base_patch16_224)", f"Over {samples} samples.")
        assert describe(f"fd_inception_my_own_{samples}", templates).explanation == f"Over my_own_{samples} samples."


class TwoMeans(GenerationMetric):
    """Two numbers, one of them under a name of two words."""

    words: ClassVar = {"mean_shift": Description("Shift", better="lower"), "level": Description("Level")}

    def measure(self, compared: Compared) -> Iterator[Metric]:
        yield self.named(compared, "mean_shift", 1.0, "")
        yield self.named(compared, "level", 2.0, "")


class Silent(GenerationMetric):
    words: ClassVar = {"silent": Description("Silent")}

    def measure(self, compared: Compared) -> Iterator[Metric]:
        raise NotMeasured


@pytest.fixture
def compared() -> Iterator[Compared]:
    GENERATION_METRICS.add("two_means", TwoMeans)
    GENERATION_METRICS.add("silence", Silent)
    samples = SeenImages("toy", 8)
    samples.update(Seen(torch.randn(8, 2, generator=rng.generator(0)), None))
    yield Compared(samples, Reference.of("test", samples), "toy")
    GENERATION_METRICS.remove("two_means")
    GENERATION_METRICS.remove("silence")


def test_one_number_is_named_by_its_metric_or_by_its_own_words(compared: Compared) -> None:
    assert one_number("frechet", compared).name == one_number("fd", compared).name == "fd_toy_test8"
    assert one_number("mean_shift", compared).name == "mean_shift_toy_test8"
    with pytest.raises(ValueError, match="two_means gives 2 numbers: name one of mean_shift, level"):
        one_number("two_means", compared)
    with pytest.raises(ValueError, match="no metric 'colour' with toy; there are fd, fid"):
        one_number("colour", compared)
    with pytest.raises(ValueError, match="not measured: silent"):
        one_number("silent", compared)
