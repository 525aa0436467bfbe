"""Authenticity: agrees with plain loops, counts copies and mirrored copies, and needs all training images."""

import pytest
import torch
from torch import Tensor

from mage import images, rng
from mage.evaluation.authenticity import PixelAuthenticity, authentic
from mage.evaluation.extractors import Seen
from mage.evaluation.generation import compare
from mage.evaluation.sample_metrics import SamplesAndData
from mage.evaluation.seen import GenerationProtocol, Reference, SeenImages
from mage.report.glossary import describe


def vectors(count: int, name: str, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=rng.generator(0, name))


def pictures(count: int, name: str) -> Tensor:
    return torch.randint(0, 256, (count, 3, 4, 4), generator=rng.generator(0, name)).to(torch.uint8)


def seen(features: Tensor, kept: int = 10_000) -> SeenImages:
    looked = SeenImages("toy", len(features), GenerationProtocol(kept=kept))
    looked.update(Seen(features, None))
    return looked


def test_authentic_samples_agree_with_plain_loops() -> None:
    samples, training = vectors(300, "samples"), vectors(40, "train")
    expected = []
    for sample in samples:
        near = [float((sample - image).norm()) for image in training]
        source = near.index(min(near))
        others = [float((training[source] - image).norm()) for i, image in enumerate(training) if i != source]
        expected.append(min(near) > min(others))
    assert authentic(samples, training).tolist() == expected
    assert len(set(expected)) == 2


def test_slight_variations_of_training_images_are_not_authentic() -> None:
    training = images.to_float(pictures(30, "train"))
    varied = (training[:20] + 0.02 * torch.randn(20, 3, 4, 4, generator=rng.generator(0, "noise"))).clamp(0, 1)
    (metric,) = PixelAuthenticity().measure(SamplesAndData(varied, pictures(30, "train"), pictures(5, "test")))
    assert metric.value == 0
    assert metric.better == "higher"


def test_mirrored_copies_are_not_authentic_and_a_symmetric_image_is_not_its_own_neighbour() -> None:
    training = images.to_float(pictures(30, "train"))
    training[0] = (training[0] + training[0].flip(-1)) / 2
    copies = training.flip(-1) * 0.98
    assert not authentic(copies, training, mirrored=True).any()
    assert authentic(copies[1:], training).any()


def test_features_are_compared_with_all_training_images_or_not_at_all() -> None:
    samples, training = vectors(20, "samples"), vectors(40, "train")
    name = "authenticity_toy_train20"
    measured = compare(seen(samples), Reference.of("train", seen(training)), "toy")
    assert measured.metrics[name] == float(authentic(samples, training).double().mean())
    assert "training image" in describe(name).explanation
    assert not any(
        "authenticity" in name for name in compare(seen(samples), Reference.of("test", seen(training)), "toy").metrics
    )
    part = compare(seen(samples), Reference.of("train", seen(training, kept=30)), "toy")
    assert name not in part.metrics
    assert any("all training images" in reason for reason in part.left_out)


def test_one_training_image_has_no_other_one() -> None:
    with pytest.raises(ValueError, match="there are 1"):
        authentic(vectors(3, "samples"), vectors(1, "train"))
