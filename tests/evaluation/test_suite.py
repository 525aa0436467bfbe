"""The suite: every part gives its numbers with their protocols, on a model of tokens, of pixels, and a classifier."""

import math
from typing import Any

import pytest
import torch

from mage import building, images
from mage.data.datasets import ArrayDataset, Subset, load_dataset
from mage.evaluation.adversarial import Attacks
from mage.evaluation.differentiable import differentiable_scorer
from mage.evaluation.features import Features
from mage.evaluation.fewshot import FewShot
from mage.evaluation.linear_probe import LinearProbe, RawPixels, lbfgs_probe
from mage.evaluation.representation import Representation
from mage.evaluation.suite import build_protocols, measure_representation
from mage.models import MAGEClassifier, MAGEConfig, PatchClassifier, PatchEncoder, PatchEncoderConfig
from mage.pipeline import Mage
from mage.tokenizers import QuantizerConfig, VQGANConfig

SIZES = MAGEConfig(width=32, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
TOKENIZER = VQGANConfig((28, 28), 1, 16, (1, 1), 1, quantizer=QuantizerConfig("ema", 64))
QUICK: dict[str, dict[str, Any]] = {
    "fewshot": {"counts": (1, 5, 5000), "draws": 2},
    "attentive": {"training_images": 200},
    "corruptions": {"kinds": ("gaussian_noise", "contrast"), "severities": (1, 5), "test_images": 60},
    "attacks": {"steps": 3, "linf_budgets": (1.0, 8.0), "l2_budgets": (0.5,), "test_images": 40},
}
DATA = [
    Subset(load_dataset("mnist5k", split=split), range(0, count)) for split, count in (("train", 400), ("test", 200))
]


def encoder_of_pixels() -> Mage:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Mage(None, PatchEncoder(PatchEncoderConfig((28, 28), 1, 7, 32, 2, 2)), precision="float32")


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_every_part_gives_its_numbers(kind: str) -> None:
    model = building.build(SIZES, tokenizer=TOKENIZER, precision="float32") if kind == "tokens" else encoder_of_pixels()
    begun: list[str] = []
    subject = Representation(model, *DATA)
    result = measure_representation(subject, build_protocols(settings=QUICK), on_start=begun.append)
    assert begun == ["features", "linear", "knn", "fewshot", "attentive", "corruptions", "attacks"]
    assert set(result.timings) == set(begun)
    assert set(result.metrics) == set(result.protocols)
    assert all(0 <= value <= 1 and math.isfinite(value) for value in result.metrics.values())
    assert "fewshot1_accuracy" in result.metrics
    assert "fewshot5000_accuracy" not in result.metrics, "no class has 5,000 images"
    assert len(result.details["fewshot5_accuracy"]["draws"]) == 2
    assert set(result.details["corruption_accuracy"]["accuracy"]["contrast"]) == {1, 5}
    for budget in ("linf_1", "linf_8", "l2_0.5"):
        attack = result.details[f"pgd_{budget}_accuracy"]
        pgd = result.metrics[f"pgd_{budget}_accuracy"]
        assert attack["fgsm"] == result.metrics[f"fgsm_{budget}_accuracy"]
        assert pgd <= min(attack["fgsm"], attack["pgd_straight_through"]) <= attack["clean"]
        assert ("pgd_latent" in attack) == (kind == "tokens")
    assert result.metrics["pgd_linf_8_accuracy"] < result.metrics["attack_clean_accuracy"]
    if kind == "pixels":  # random features of pixels still tell digits apart
        assert result.metrics["linear_probe_accuracy"] > 0.4


def test_a_classifier_is_judged_by_its_own_head() -> None:
    made = building.build(SIZES, tokenizer=TOKENIZER, precision="float32")
    classifier = MAGEClassifier(SIZES, made.transformer.vocabulary, made.transformer.grid, num_classes=10)
    tuned = Mage(made.tokenizer, classifier, precision="float32")
    one = {"kinds": ("contrast",), "severities": (1,), "test_images": 50}
    subject = Representation(tuned, *DATA)
    result = measure_representation(subject, build_protocols(["corruptions"], {"corruptions": one}))
    assert result.protocols["corruption_accuracy"].startswith("fine-tuned classifier")
    assert "ours" not in result.protocols["corruption_accuracy"]
    assert set(result.timings) == {"corruptions"}, "nobody asked for features"
    frost = {"kinds": ("frost",), "severities": (1,), "test_images": 2}
    frosted = measure_representation(subject, build_protocols(["corruptions"], {"corruptions": frost}))
    assert frosted.protocols["corruption_accuracy"].endswith("; ours: frost (made, not photographed)")
    assert set(result.metrics) == {"corruption_accuracy", "corruption_clean_accuracy"}


def test_features_are_computed_once_for_all_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    model = encoder_of_pixels()
    features = model.features
    monkeypatch.setattr(model, "features", lambda *given, **more: calls.append(1) or features(*given, **more))
    measure_representation(Representation(model, *DATA, batch_size=200), build_protocols(["linear", "knn", "fewshot"]))
    assert len(calls) == 3, "400 training and 200 test images in batches of 200"


def test_a_probe_of_one_half_of_the_features_is_named_after_it() -> None:
    subject = Representation(encoder_of_pixels(), *DATA, pool="both")
    measured = measure_representation(subject, {"mean": LinearProbe(pool="mean"), "lars": LinearProbe("lars")})
    assert set(measured.metrics) == {"linear_probe_mean_accuracy", "linear_probe_lars_accuracy"}
    means = Representation(encoder_of_pixels(), *DATA, pool="mean")
    alone = measure_representation(means, {"linear": LinearProbe()})
    expected = alone.metrics["linear_probe_accuracy"]
    assert measured.metrics["linear_probe_mean_accuracy"] == pytest.approx(expected, abs=0.006)  # one test image


def test_a_probe_of_the_last_four_blocks_is_named_after_them() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        deep = Mage(None, PatchEncoder(PatchEncoderConfig((28, 28), 1, 7, 32, 5, 2)), precision="float32")
    subject = Representation(deep, *DATA, pool="last4")
    measured = measure_representation(subject, {"last4": LinearProbe(pool="last4")})
    assert set(measured.metrics) == {"linear_probe_last4_accuracy"}
    assert measured.metrics["linear_probe_last4_accuracy"] > 0.5
    assert "last4" in measured.protocols["linear_probe_last4_accuracy"]
    wrong = Representation(deep, *DATA, pool="class")
    for other in ("mean", "last4"):
        with pytest.raises(ValueError, match=f"a probe of pool='{other}' needs features of pool="):
            measure_representation(wrong, {"probe": LinearProbe(pool=other)})  # type: ignore[arg-type]
    pixels = torch.rand(2, 1, 28, 28)
    scores = differentiable_scorer(deep, subject.head, pool="last4")(pixels)
    torch.testing.assert_close(scores.detach(), subject.classifier(pixels))


def test_a_classifier_is_measured_on_its_own_classes_only() -> None:
    with torch.random.fork_rng(devices=[]):
        network = PatchClassifier(PatchEncoderConfig((28, 28), 1, 7, 32, 2, 2), num_classes=10)
    names = [f"digit {number}" for number in range(10)]
    model = Mage(None, network, notes={"class_names": names}, precision="float32")
    with pytest.raises(ValueError, match=r"0, 1, 2, .*are not those of the classifier \(digit 0, digit 1"):
        Representation(model, *DATA)
    model.notes["class_names"] = list(DATA[0].class_names)
    assert Representation(model, *DATA).head is None
    assert Representation(model, *DATA).transform.resize == 32, "28 pixels times 292 / 256, as fine-tuning tested it"
    model.recipe["data"] = {"test_resize": 1.0}
    subject = Representation(model, *DATA)
    assert (subject.transform.resize, subject.classifier_name) == (0, "fine-tuned classifier, centre crops")


def test_unknown_protocols_are_errors() -> None:
    with pytest.raises(ValueError, match=r"no protocol 'colour'; there are .*linear"):
        build_protocols(["linear", "colour"])
    with pytest.raises(ValueError, match="name at least one protocol of linear"):
        build_protocols([])


def test_images_without_labels_are_refused_before_anything_is_measured() -> None:
    bare = ArrayDataset("bare", torch.zeros(4, 1, 28, 28, dtype=torch.uint8), None)
    for train, test in ((DATA[0], bare), (bare, DATA[1])):
        with pytest.raises(ValueError, match="bare has no labels"):
            Representation(encoder_of_pixels(), train, test)


def test_a_probe_of_one_half_needs_features_of_both() -> None:
    subject = Representation(encoder_of_pixels(), *DATA, pool="mean")
    with pytest.raises(ValueError, match="needs features of pool='both', not of 'mean'"):
        list(LinearProbe(pool="mean").measure(subject))


def test_protocols_that_cannot_be_run_say_why() -> None:
    few = FewShot(counts=(5000,))
    measured = measure_representation(
        Representation(encoder_of_pixels(), *DATA), {"fewshot": few, "attacks": Attacks(0, 1, (), ())}
    )
    assert measured.metrics == {}
    assert [reason.split(":")[0] for reason in measured.left_out] == ["few-shot", "attacks"]


def test_raw_pixels_are_classified_as_they_are() -> None:
    measured = measure_representation(Representation(encoder_of_pixels(), *DATA), {"pixels": RawPixels()})
    train, test = (
        Features(torch.stack([images.to_float(part.load(index)).flatten() for index in range(len(part))]),
                 torch.from_numpy(part.labels))
        for part in DATA
    )  # fmt: skip
    assert measured.metrics == {"raw_pixel_accuracy": lbfgs_probe(train, test).accuracy}
