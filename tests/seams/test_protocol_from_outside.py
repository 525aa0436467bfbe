"""A stranger's protocol, metric of tokenizers and metric of samples: measured with the others, described in reports."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import timm
import torch

import mage
from mage.cli.main import main
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.evaluation.representation import REPRESENTATION_PROTOCOLS, Representation, RepresentationProtocol
from mage.evaluation.sample_metrics import SAMPLE_METRICS, SampleMetric, SamplesAndData
from mage.evaluation.samples import measure_samples
from mage.evaluation.tokenizer_metrics import (
    TOKENIZER_METRICS,
    Reconstructions,
    Tokenized,
    TokenizerMetric,
    TokenizerProtocol,
)
from mage.recipes import named
from mage.report.contents import Contents, read_contents
from mage.report.glossary import accuracy_bars, describe
from mage.report.page import write_report


class NearestClassMean(RepresentationProtocol):
    metrics = {  # noqa: RUF012
        "class_mean_accuracy": Description("Nearest class mean", "By {nothing}.".replace("{nothing}", "means"), "share",
                                           "higher", bar=True)
    }  # fmt: skip

    def measure(self, subject: Representation) -> Iterator[Metric]:
        train, test = subject.train, subject.test
        means = torch.stack([train.features[train.labels == label].mean(0) for label in train.labels.unique()])
        right = torch.cdist(test.features, means).argmin(1) == test.labels
        yield self.metric("class_mean_accuracy", float(right.float().mean()), subject.pool)


class Brightness(TokenizerMetric):
    metrics = {"brightness_lost": Description("Brightness lost", "In the mean.", better="lower")}  # noqa: RUF012

    def __init__(self, protocol: TokenizerProtocol) -> None:
        self.lost: list[torch.Tensor] = []

    def update(self, batch: Reconstructions) -> None:
        self.lost.append((batch.originals - batch.reconstructions).mean(dim=(1, 2, 3)))

    def measure(self, tokenized: Tokenized) -> Iterator[Metric]:
        lost = torch.cat(self.lost)
        assert len(lost) == len(tokenized.ids)
        yield self.metric("brightness_lost", float(lost.mean()), "mean")


class Contrast(SampleMetric):
    metrics = {"contrast_{part}": Description("Contrast, {part}", "Of the {part}.")}  # noqa: RUF012

    def measure(self, subject: SamplesAndData) -> Iterator[Metric]:
        yield self.metric("contrast_samples", float(subject.samples.std()), "standard deviation")


class NeverMeasured(RepresentationProtocol):
    uses_features = False
    metrics: ClassVar = {}

    def measure(self, subject: Representation) -> Iterator[Metric]:
        raise NotMeasured("never: there is nothing to measure")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    REPRESENTATION_PROTOCOLS.add("class-means", NearestClassMean)
    REPRESENTATION_PROTOCOLS.add("never", NeverMeasured)
    TOKENIZER_METRICS.add("brightness", Brightness)
    SAMPLE_METRICS.add("contrast", Contrast)
    yield
    REPRESENTATION_PROTOCOLS.remove("class-means")
    REPRESENTATION_PROTOCOLS.remove("never")
    TOKENIZER_METRICS.remove("brightness")
    SAMPLE_METRICS.remove("contrast")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seams") / "model"
    recipe = named("smoke")
    mage.build(recipe.model, tokenizer=recipe.tokenizer, precision="float32").save(folder)
    return folder


def test_a_protocol_is_run_by_name_and_shown_among_the_bars(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", "digits", "--parts", "class-means", "knn", "--out", str(tmp_path / "run"), "--device", "cpu"]
    main(["evaluate", "representations", "--model", str(model), *words, "--json"])
    measured = json.loads(capsys.readouterr().out)
    assert set(measured["metrics"]) == {"class_mean_accuracy", "knn_accuracy"}
    assert 0 < measured["metrics"]["class_mean_accuracy"] < 1
    contents: Contents = read_contents(tmp_path / "run")
    assert accuracy_bars(contents.part("metrics")) == ["class_mean_accuracy", "knn_accuracy"]
    page = write_report(tmp_path / "run").read_text()
    assert page.count("Nearest class mean") >= 2, "a bar, and a row of the table"


def test_a_metric_of_tokenizers_is_measured_with_the_others(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", "tokenizer", "--tokenizer", str(model), "--data", "digits", "--perceptual", "none", "--num", "20",
          "--device", "cpu", "--json"])  # fmt: skip
    measured = json.loads(capsys.readouterr().out)
    assert measured["protocols"]["brightness_lost"] == "mean"
    assert describe("brightness_lost").better == "lower"


def test_the_network_of_a_tokenizers_distance_can_be_chosen(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "weights.pth")
    main(["evaluate", "tokenizer", "--tokenizer", str(model), "--data", "digits", "--perceptual", "none", "--num", "20",
          "--device", "cpu", "--json", "--extractor", "timm:test_vit",
          "--extractor-weights", str(tmp_path / "weights.pth")])  # fmt: skip
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    distances = [name for name in metrics if name.startswith("rf")]
    assert len(distances) == 1, distances
    assert "test_vit" in distances[0]
    assert metrics[distances[0]] > 0


def test_a_metric_of_samples_is_measured_with_the_others() -> None:
    pixels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    measured = measure_samples(SamplesAndData(torch.rand(4, 1, 8, 8), pixels, pixels))
    assert set(measured.metrics) == {"near_copy_share", "authentic_share", "contrast_samples"}
    assert measured.metrics["near_copy_share"] == 0
    assert describe("contrast_samples").title == "Contrast, samples"


def test_a_protocol_without_a_number_is_named_with_its_reason(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "digits", "--parts", "never", "--device", "cpu"]
    main(["evaluate", "representations", "--model", str(model), *words])
    assert "not measured: never: there is nothing to measure" in capsys.readouterr().out
