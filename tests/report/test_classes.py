"""Answers by class on a page: the weakest first, every cell of the matrix, and nothing from damaged files."""

import re

import torch

from mage.evaluation.confusion import Confusion
from mage.report.classes import MOST_ROWS, classes_of_classifiers
from tests.report.test_report import Page


def values_of(size: int, names: tuple[str, ...] = ()) -> dict[str, object]:
    """representations.json of a classifier that takes the last class's images for the first class."""
    labels = torch.arange(size).repeat(3)
    answers = Confusion.of(labels.masked_fill(labels == size - 1, 0), labels, names)
    return {"details": {"linear_probe_accuracy": answers.as_dict()}}


def test_the_weakest_class_comes_first_with_its_interval() -> None:
    page = Page(classes_of_classifiers(values_of(3, ("cat", "<dog>", "fish"))))
    assert "Linear probe, by class" in page.text
    order = [page.text.index(words) for words in ("fish 0.0", "<dog> 100.0", "cat 100.0")]
    assert order[0] == min(order)
    assert "0.0 to 56.1" in page.text, "the interval of 0 of 3"


def test_the_matrix_has_a_cell_for_each_pair_of_classes() -> None:
    text = classes_of_classifiers(values_of(3, ("cat", "<dog>", "fish")))
    assert len(re.findall(r'<td class="(?:right|wrong)"', text)) == 9
    assert 'title="fish taken for cat: 3"' in text
    assert "<dog>" not in text, "names of folders are text, not tags"


def test_of_many_classes_the_confusions_are_listed() -> None:
    text = classes_of_classifiers(values_of(MOST_ROWS + 1))
    assert '<td class="wrong"' not in text
    assert f"{MOST_ROWS} taken for 0: 3 images" in text


def test_damaged_values_are_left_out() -> None:
    whole = values_of(3)["details"]["linear_probe_accuracy"]  # type: ignore[index]
    for part, damage in (
        ("per_class", {"cat": 3, "dog": {"accuracy": "high"}, "fish": {"accuracy": float("nan")}}),
        ("confusion", [[1], "x", None]),
        ("confusion", [[1, 2, -3]] * 3),
        ("class_names", "abc"),
        ("confusions", [None, [1, 2]]),
    ):
        Page(classes_of_classifiers({"details": {"linear_probe_accuracy": {**whole, part: damage}}}))
    for details in (None, [], {"linear_probe_accuracy": None}, {"linear_probe_accuracy": {"per_class": []}}):
        assert classes_of_classifiers({"details": details}) == ""
