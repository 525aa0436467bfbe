"""Near copies: the nearest training image by plain loops, and a share that copies alone reach."""

import functools

import pytest
import torch
from torch import Tensor

from mage import images, rng
from mage.evaluation import authenticity, near_copies
from mage.evaluation.authenticity import authentic
from mage.evaluation.near_copies import (
    NearCopies,
    Nearest,
    near_copy_interval,
    near_copy_share,
    nearest_training_images,
)
from mage.evaluation.sample_metrics import SamplesAndData


def pictures(count: int, name: str) -> Tensor:
    return torch.randint(0, 256, (count, 3, 4, 4), generator=rng.generator(0, name)).to(torch.uint8)


def test_nearest_training_images_agree_with_plain_loops() -> None:
    samples, train = (images.to_float(pictures(count, name)) for count, name in ((260, "samples"), (40, "train")))
    nearest = nearest_training_images(samples, train)
    for index, sample in enumerate(samples):
        distances = [float((sample - image).square().sum().sqrt()) for image in train]
        assert int(nearest.indices[index]) == distances.index(min(distances))
        assert float(nearest.distances[index]) == pytest.approx(min(distances), rel=1e-3)


def test_training_images_are_compared_a_few_at_a_time_as_bytes_or_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a large folder as floats would need four times the memory of its pixels."""
    samples, train = images.to_float(pictures(60, "samples")), pictures(40, "train")
    whole = nearest_training_images(samples, images.to_float(train), mirrored=True)
    real = authentic(samples, images.to_float(train), mirrored=True)
    few = functools.partial(near_copies.row_parts, most_bytes=4 * train[0].numel() * 7)
    monkeypatch.setattr(near_copies, "row_parts", few)
    monkeypatch.setattr(authenticity, "row_parts", few)
    parts = list(few(train))
    assert [start for start, _ in parts] == [0, 7, 14, 21, 28, 35]
    assert torch.equal(torch.cat([rows for _, rows in parts]), images.to_float(train).flatten(1))
    nearest = nearest_training_images(samples, train, mirrored=True)
    assert torch.equal(nearest.indices, whole.indices)
    assert torch.equal(nearest.distances, whole.distances)
    assert torch.equal(authentic(samples, train, mirrored=True), real)


def test_a_copy_is_at_distance_zero() -> None:
    train = torch.rand(40, 3, 32, 32, generator=rng.generator(0, "images"))
    nearest = nearest_training_images(train[5:35], train)
    assert nearest.distances.tolist() == [0.0] * 30
    assert nearest.indices.tolist() == list(range(5, 35))


def test_the_share_counts_samples_below_the_first_percentile_of_test_images() -> None:
    test = Nearest(torch.linspace(1, 2, 101), torch.zeros(101, dtype=torch.int64))
    samples = Nearest(torch.tensor([0.5, 1.005, 1.015, 1.5]), torch.zeros(4, dtype=torch.int64))
    assert near_copy_share(samples, test) == 0.5


def test_copies_of_training_images_are_counted_and_named() -> None:
    train, test = pictures(50, "train"), pictures(30, "test")
    samples = torch.cat([train[7:9], pictures(2, "new")])
    (metric,) = NearCopies().measure(SamplesAndData(images.to_float(samples), train, test))
    assert metric.value == 0.5
    assert metric.better == "lower"
    assert metric.details["training_images"][:2] == [7, 8]
    assert metric.protocol.endswith("of 30 test images")


def test_the_interval_counts_the_chance_of_few_test_images_too() -> None:
    """The threshold rests on test images: of few, it could have been another one."""
    samples = Nearest(torch.linspace(0, 1, 1000), torch.zeros(1000, dtype=torch.int64))
    widths = []
    for count in (50, 5000):
        test = Nearest(torch.linspace(0, 1, count), torch.zeros(count, dtype=torch.int64))
        low, high = near_copy_interval(samples, test, draws=200)
        assert low <= near_copy_share(samples, test) <= high
        widths.append(high - low)
    assert widths[0] > 2 * widths[1]
    far = Nearest(torch.full((200,), 9.0), torch.zeros(200, dtype=torch.int64))
    low, high = near_copy_interval(far, test, draws=200)
    assert low == 0
    assert 0.01 < high < 0.03, "none of 200 samples may be one of a hundred"


def test_reconstructions_of_test_images_are_a_control() -> None:
    train, test = pictures(50, "train"), pictures(30, "test")
    restored = torch.cat([images.to_float(train[:3]), images.to_float(test[3:12])])
    own, control = NearCopies().measure(SamplesAndData(images.to_float(test), train, test, restored=restored))
    assert (own.name, control.name) == ("near_copy_share", "near_copy_share_restored")
    assert own.value < 0.1
    assert control.value == pytest.approx(3 / 12, abs=0.09)  # at most one of the test images below the percentile
    assert control.protocol.startswith("12 test images after the tokenizer; pixel L2")


def test_test_images_of_all_classes_set_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets come sorted by class: the first ones alone, copies here, would set a threshold of 0."""
    monkeypatch.setattr("mage.evaluation.near_copies.TEST_IMAGES", 10)
    train = pictures(50, "train")
    test = torch.cat([train[:10], pictures(190, "test")])
    samples = images.to_float((train[:20].to(torch.int16) + 1).clamp(max=255).to(torch.uint8))  # near, and no copies
    (metric,) = NearCopies().measure(SamplesAndData(samples, train, test))
    assert metric.value == 1
    assert metric.protocol.endswith("of 10 test images")


def test_a_mirrored_copy_is_found_where_mirror_images_belong_to_the_data() -> None:
    train, test = pictures(50, "train"), pictures(30, "test")
    samples = images.to_float(train[7:9].flip(-1))
    (plain,) = NearCopies().measure(SamplesAndData(samples, train, test))
    (mirrored,) = NearCopies().measure(SamplesAndData(samples, train, test, mirrored=True))
    assert (plain.value, mirrored.value) == (0.0, 1.0)
    assert mirrored.details["training_images"] == [7, 8]
    assert "mirror images" in mirrored.protocol
