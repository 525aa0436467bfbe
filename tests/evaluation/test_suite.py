"""The suite: every part gives its numbers with their protocols, on a model of tokens, of pixels, and a classifier."""

import math

import pytest
import torch

from mage import building
from mage.data.datasets import load_dataset, subset
from mage.evaluation.suite import PARTS, SuiteConfig, measure_representation
from mage.models import MAGEClassifier, MAGEConfig, PatchEncoder, PatchEncoderConfig
from mage.pipeline import Mage
from mage.tokenizers import QuantizerConfig, VQGANConfig

SIZES = MAGEConfig(width=32, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
TOKENIZER = VQGANConfig((28, 28), 1, 16, (1, 1), 1, quantizer=QuantizerConfig("ema", 64))
QUICK = SuiteConfig(
    counts=(1, 5, 5000),
    draws=2,
    kinds=("gaussian_noise", "contrast"),
    severities=(1, 5),
    corruption_images=60,
    attack_images=40,
    attack_steps=3,
    linf_budgets=(1.0, 8.0),
    l2_budgets=(0.5,),
    token_images=200,
)
DATA = [
    subset(load_dataset("mnist5k", split=split), range(0, count)) for split, count in (("train", 400), ("test", 200))
]


def encoder_of_pixels() -> Mage:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Mage(None, PatchEncoder(PatchEncoderConfig((28, 28), 1, 7, 32, 2, 2)), precision="float32")


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_every_part_gives_its_numbers(kind: str) -> None:
    model = building.build(SIZES, tokenizer=TOKENIZER, precision="float32") if kind == "tokens" else encoder_of_pixels()
    begun: list[str] = []
    result = measure_representation(model, *DATA, QUICK, on_part=begun.append)
    assert begun == ["features", "linear", "knn", "fewshot", "attentive", "head", "corruptions", "attacks"]
    assert set(result.timings) == set(begun)
    assert set(result.metrics) == set(result.protocol)
    assert all(0 <= value <= 1 and math.isfinite(value) for value in result.metrics.values())
    assert [one["per_class"] for one in result.few_shot] == [1, 5]  # no class has 5,000 images
    assert result.metrics["fewshot5_accuracy"] == result.few_shot[1]["mean"]
    assert set(result.corruption_accuracy["contrast"]) == {1, 5}
    for point in result.attacks:
        assert point["pgd"] <= min(point["fgsm"], point["pgd_straight_through"]) <= point["clean"]
        assert ("pgd_latent" in point) == (kind == "tokens")
    assert result.attacks[1]["pgd"] < result.attacks[0]["clean"]
    assert result.metrics["pgd_linf_8_accuracy"] == result.attacks[1]["pgd"]
    if kind == "pixels":  # random features of pixels still tell digits apart
        assert result.metrics["linear_probe_accuracy"] > 0.4


def test_a_classifier_is_judged_by_its_own_head() -> None:
    made = building.build(SIZES, tokenizer=TOKENIZER, precision="float32")
    classifier = MAGEClassifier(SIZES, made.transformer.vocabulary, made.transformer.grid, num_classes=10)
    tuned = Mage(made.tokenizer, classifier, precision="float32")
    result = measure_representation(
        tuned, *DATA, SuiteConfig(parts=("corruptions",), kinds=("contrast",), severities=(1,), corruption_images=50)
    )
    assert result.protocol["corruption_accuracy"].startswith("fine-tuned classifier")
    assert "ours" not in result.protocol["corruption_accuracy"]
    frosted = measure_representation(
        tuned, *DATA, SuiteConfig(parts=("corruptions",), kinds=("frost",), severities=(1,), corruption_images=2)
    )
    assert frosted.protocol["corruption_accuracy"].endswith("; ours: frost (made, not photographed)")
    assert set(result.metrics) == {"corruption_accuracy", "corruption_clean_accuracy"}


def test_unknown_parts_are_errors() -> None:
    with pytest.raises(ValueError, match="no part colour; parts are linear"):
        SuiteConfig(parts=("linear", "colour"))
    assert len(PARTS) == 6
