"""Answers by class, and the intervals of accuracies, compared with plain loops and with scipy."""

import json

import pytest
import torch
from scipy.stats import binomtest

from mage import rng
from mage.evaluation.confusion import MOST_CLASSES, MOST_CONFUSIONS, Confusion, wilson_interval, with_interval


@pytest.mark.parametrize(("right", "count"), [(16, 30), (0, 5), (5, 5), (1, 1), (990, 1000), (1, 100_000)])
def test_intervals_are_those_of_wilson(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_thirty_images_leave_a_wide_interval_which_is_printed() -> None:
    assert with_interval(16, 30) == "53.3 % (36.1 to 69.8 %)"
    for right, count in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="at least one image"):
            wilson_interval(right, count)


def test_every_answer_is_counted_once_in_its_row_and_column() -> None:
    generator = rng.generator(0, "answers")
    labels, predicted = (torch.randint(4, (200,), generator=generator) for _ in range(2))
    found = Confusion.of(predicted, labels, ("a", "b", "c", "d", "e"))
    expected = [[0] * 5 for _ in range(5)]
    for true, taken in zip(labels.tolist(), predicted.tolist(), strict=True):
        expected[true][taken] += 1
    assert found.counts.tolist() == expected
    assert found.right == int((labels == predicted).sum())
    values = json.loads(json.dumps(found.as_dict()))
    assert "e" not in values["per_class"], "a class without test images has no accuracy"
    of_a = values["per_class"]["a"]
    assert of_a["accuracy"] == pytest.approx(expected[0][0] / sum(expected[0]))
    assert of_a["low"] < of_a["accuracy"] < of_a["high"]
    most = max((expected[true][taken], true, taken) for true in range(5) for taken in range(5) if true != taken)
    assert values["confusions"][0][2] == most[0]


def test_the_sentence_names_the_weakest_class_and_the_most_frequent_confusion() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    found = Confusion.of(torch.tensor([0, 1, 1, 1, 1, 1]), labels, ("cat", "dog"))
    assert found.sentence() == ("lowest by class: cat 33 %, dog 100 %; most often cat is taken for dog (2 images)")
    assert Confusion.of(labels, labels, ("cat", "dog")).sentence() == ""


def test_results_of_a_thousand_classes_stay_small() -> None:
    labels = torch.arange(1000)
    found = Confusion.of(labels.roll(1), labels, ()).as_dict()
    assert "confusion" not in found
    assert len(found["confusions"]) == MOST_CONFUSIONS
    assert len(found["per_class"]) == 1000
    many = torch.arange(20_000)  # a matrix of them would take 3 GB, and sorting it as much again
    assert len(Confusion.of(many.roll(1), many, ()).confusions()) == MOST_CONFUSIONS
    few = Confusion.of(labels[:MOST_CLASSES], labels[:MOST_CLASSES], ()).as_dict()
    assert len(few["confusion"]) == MOST_CLASSES
