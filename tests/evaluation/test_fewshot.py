"""Few-shot: draws are balanced and repeatable, intervals are Student's, known features give known answers."""

import math

import pytest
import torch
from scipy import stats

from mage import rng
from mage.evaluation.features import Features
from mage.evaluation.fewshot import choose_per_class, confidence_interval, few_shot


def clusters(count: int, name: str, spread: float) -> Features:
    labels = torch.arange(count) % 5
    noise = torch.randn(count, 12, generator=rng.generator(0, name))
    return Features(torch.nn.functional.one_hot(labels, 12) * 10 + spread * noise, labels)


def test_each_class_gives_the_same_number_of_images_and_none_twice() -> None:
    labels = torch.tensor([0] * 10 + [1] * 3 + [2] * 6)
    chosen = choose_per_class(labels, 3, rng.generator(0))
    assert torch.bincount(labels[chosen]).tolist() == [3, 3, 3]
    assert len(chosen.unique()) == 9


def test_separated_classes_need_one_image_each_and_more_images_help_where_they_overlap() -> None:
    train, test = clusters(200, "train", 0.1), clusters(300, "test", 0.1)
    assert few_shot(train, test, counts=(1,), draws=2)[0].mean == 1.0
    train, test = clusters(500, "train", 6.0), clusters(500, "test", 6.0)
    one, many = few_shot(train, test, counts=(1, 50), draws=4)
    assert one.mean + one.interval < many.mean - many.interval
    assert 0.2 < one.mean < many.mean < 1
    assert (one.per_class, many.per_class, len(one.draws)) == (1, 50, 4)


def test_random_features_are_at_chance() -> None:
    labels = torch.arange(1000) % 5
    random = [Features(torch.randn(1000, 12, generator=rng.generator(index)), labels) for index in range(2)]
    result = few_shot(*random, counts=(25,), draws=5)[0]
    assert abs(result.mean - 0.2) < 0.04


def test_a_seed_repeats_its_draws_and_another_has_others() -> None:
    train, test = clusters(200, "train", 6.0), clusters(200, "test", 6.0)
    first, again, other = (few_shot(train, test, counts=(2,), draws=3, seed=seed)[0] for seed in (0, 0, 1))
    assert first == again
    assert first.draws != other.draws


def test_interval_is_students() -> None:
    values = [0.61, 0.64, 0.58, 0.66, 0.60]
    low, high = stats.t.interval(0.95, 4, loc=0.618, scale=stats.sem(values))
    assert confidence_interval(values) == pytest.approx((high - low) / 2)
    assert confidence_interval([0.5]) == math.inf


def test_draws_that_share_images_do_not_make_the_interval_smaller() -> None:
    """Draws of nearly all images agree with one another, which says nothing of other images."""
    train, test = clusters(200, "train", 6.0), clusters(200, "test", 6.0)
    smallest = int(torch.bincount(train.labels).min())
    balanced = choose_per_class(train.labels, smallest, rng.generator(0))
    train = Features(train.features[balanced], train.labels[balanced])
    some, most, every = few_shot(train, test, counts=(smallest // 4, smallest - 2, smallest), draws=4)
    assert most.interval > some.interval / 2
    assert every.interval == math.inf
    assert len({round(value, 9) for value in every.draws}) == 1
    deviation = float(torch.tensor(most.draws, dtype=torch.float64).std())
    shared = (smallest - 2) / smallest
    wide = stats.t.ppf(0.975, 3) * deviation * math.sqrt(1 / 4 + shared / (1 - shared))
    assert most.interval == pytest.approx(wide)


def test_too_few_images_are_an_error() -> None:
    train = clusters(20, "train", 1.0)
    with pytest.raises(ValueError, match="smallest class has 4 training images, fewer than the 5 per class"):
        few_shot(train, train, counts=(1, 5))
    with pytest.raises(ValueError, match="at least one draw"):
        few_shot(train, train, counts=(1,), draws=0)
