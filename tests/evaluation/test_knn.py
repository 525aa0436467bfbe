"""k nearest neighbours on features."""

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from mage import rng
from mage.evaluation import knn as module
from mage.evaluation.features import Features
from mage.evaluation.knn import knn, neighbour_accuracy, neighbour_predictions
from tests.reference import evaluation as reference


def clusters(count: int, name: str, *, classes: int = 4, spread: float = 0.5, width: int = 8) -> Features:
    """Points around one random centre per class; the centres are the same for every name."""
    centres = torch.randn(classes, width, generator=rng.generator(0, "centres"))
    labels = torch.randint(classes, (count,), generator=rng.generator(0, name, "labels"))
    noise = torch.randn(count, width, generator=rng.generator(0, name, "noise"))
    return Features(centres[labels] + spread * noise, labels)


@pytest.mark.parametrize(("temperature", "spread"), [(None, 1.5), (0.07, 1.5), (1.0, 1.5), (0.005, 1.5)])
def test_predictions_agree_with_plain_loops(temperature: float | None, spread: float) -> None:
    """Also where exp(similarity / temperature) is beyond numbers of 32 bits."""
    train, test = (clusters(count, name, spread=spread) for count, name in ((40, "train"), (25, "test")))
    found = neighbour_predictions(train, test.features, (7, 1, 4), temperature)
    for k in (1, 4, 7):
        expected = [
            reference.knn_predict(train.features.tolist(), train.labels.tolist(), query, k, temperature)
            for query in test.features.tolist()
        ]
        assert found[k].tolist() == expected


def test_one_vote_each_agrees_with_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIMILARITIES_AT_ONCE", 1000)  # several chunks
    train, test = clusters(300, "train", spread=1.5), clusters(200, "test", spread=1.5)
    found = neighbour_accuracy(train, test, (1, 5, 20), None)
    for k, accuracy in found.items():
        model = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
        model.fit(train.features.numpy(), train.labels.numpy())
        assert accuracy == pytest.approx(model.score(test.features.numpy(), test.labels.numpy()))
        assert 0.4 < accuracy < 1


def test_separate_clusters_are_told_apart_and_noise_is_not() -> None:
    train, test = clusters(200, "train", spread=0.05), clusters(100, "test", spread=0.05)
    assert knn(train, test).accuracy == 1
    shuffled = Features(train.features, train.labels[torch.randperm(200, generator=rng.generator(0))])
    many = clusters(2000, "test", spread=0.05)
    assert knn(shuffled, many).accuracy == pytest.approx(0.25, abs=0.12)
    random = (Features(torch.randn(2000, 8, generator=rng.generator(0, n)), clusters(2000, n).labels) for n in "ab")
    assert knn(*random).accuracy == pytest.approx(0.25, abs=0.04)


def test_k_is_chosen_without_looking_at_the_test_images() -> None:
    train, test = clusters(400, "train", spread=1.2), clusters(100, "test", spread=1.2)
    wrong = Features(test.features, (test.labels + 1) % 4)
    right, spoilt = knn(train, test), knn(train, wrong)
    assert right.k == spoilt.k
    assert right.accuracy == right.accuracy_per_k[right.k]
    assert right.accuracy_per_k != spoilt.accuracy_per_k
    assert tuple(right.accuracy_per_k) == (1, 5, 10, 20, 50, 100, 200)


def test_small_sets_leave_large_k_out() -> None:
    train, test = clusters(30, "train"), clusters(10, "test")
    assert tuple(knn(train, test).accuracy_per_k) == (1, 5, 10, 20)
    with pytest.raises(ValueError, match="k must lie between 1 and the 30 training images"):
        neighbour_accuracy(train, test, (31,), None)


def test_neighbours_are_told_apart_in_float32_under_autocast() -> None:
    clusters = torch.randn(2, 16, generator=rng.generator(0)) * 0.02 + 1  # bfloat16 keeps 8 bits: all look alike
    labels = torch.arange(64) % 2
    bank = Features(clusters[labels], labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert neighbour_accuracy(bank, bank, (5,), 0.07) == {5: 1.0}


def test_length_of_a_feature_does_not_count() -> None:
    train, test = clusters(100, "train", spread=1.0), clusters(50, "test", spread=1.0)
    scale = torch.rand(100, 1, generator=rng.generator(0, "scale")) + 0.1
    assert knn(Features(train.features * scale, train.labels), test) == knn(train, test)
