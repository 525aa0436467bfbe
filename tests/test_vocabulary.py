"""Layouts of the vocabulary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mage.vocabulary import Vocabulary


@given(num_codes=st.integers(2, 5000), num_classes=st.integers(0, 2000))
def test_a_fresh_vocabulary_is_codes_classes_null_class_and_mask_without_gaps(num_codes: int, num_classes: int) -> None:
    words = Vocabulary.fresh(num_codes, num_classes)
    assert (words.num_codes, words.num_classes) == (num_codes, num_classes)
    ids = [*range(num_codes + num_classes), words.null_class_id, words.mask_id]
    assert ids == list(range(words.size)), "every id means one thing"


def test_classes_are_optional() -> None:
    assert Vocabulary.fresh(8) == Vocabulary(num_codes=8, num_classes=0, null_class_id=8, mask_id=9, size=10)


def test_the_released_layout_is_the_legacy_one() -> None:
    words = Vocabulary.released()
    assert (words.num_codes, words.num_classes, words.size) == (1024, 1000, 2025)
    assert words.null_class_id == 1100
    assert words.mask_id == 2024 == words.size - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_codes": 1}, "at least 2 codes, not 1"),
        ({"null_class_id": 7}, "null_class_id 7 must lie after the 8 codes and below 12"),
        ({"null_class_id": 12}, "null_class_id 12 must lie"),
        ({"mask_id": 0}, "mask_id 0 must lie"),
        ({"mask_id": 12}, "mask_id 12 must lie"),
    ],
)
def test_special_words_cannot_be_codes_or_lie_outside(change: dict[str, int], message: str) -> None:
    layout = {"num_codes": 8, "num_classes": 2, "null_class_id": 10, "mask_id": 11, "size": 12}
    Vocabulary(**layout)
    with pytest.raises(ValueError, match=message):
        Vocabulary(**{**layout, **change})
