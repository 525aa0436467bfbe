"""Features of a data set: aligned with labels, whatever the batches, workers and broken files."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mage import rng
from mage.data.datasets import CorruptImage
from mage.data.transforms import TransformConfig
from mage.evaluation.features import extract_features

TRANSFORM = TransformConfig(size=(4, 4))


class Pictures:
    """Image k is k everywhere, its label k % 3; some cannot be read."""

    name, class_names = "pictures", ("a", "b", "c")

    def __init__(self, count: int = 11, *, broken: tuple[int, ...] = (), labelled: bool = True) -> None:
        self.count, self.broken = count, broken
        self.labels: np.ndarray[Any, Any] | None = np.arange(count) % 3 if labelled else None
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> Tensor:
        if index in self.broken:
            raise CorruptImage(f"picture {index}")
        return torch.full((1, 4, 4), index, dtype=torch.uint8)


class Model:
    """Its feature is the mean pixel; pool "class" negates it."""

    def features(self, images: Tensor, pool: str = "mean") -> Tensor:
        mean = images.mean(dim=(1, 2, 3))[:, None].double() * 255
        return mean if pool == "mean" else -mean


def test_features_and_labels_stay_aligned_without_broken_files() -> None:
    dataset = Pictures(broken=(0, 4, 10))
    found = extract_features(Model(), dataset, TRANSFORM, batch_size=3)
    expected = [1, 2, 3, 5, 6, 7, 8, 9]
    torch.testing.assert_close(found.features, torch.tensor(expected).float()[:, None])
    assert found.features.dtype == torch.float32
    assert found.labels.tolist() == [index % 3 for index in expected]
    assert dataset.skipped == ["picture 0", "picture 4", "picture 10"]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_batch_size_and_workers_change_nothing(num_workers: int) -> None:
    expected = extract_features(Model(), Pictures(23, broken=(5,)), TRANSFORM)
    for batch_size in (1, 4, 50):
        dataset = Pictures(23, broken=(5,))
        found = extract_features(Model(), dataset, TRANSFORM, batch_size=batch_size, num_workers=num_workers)
        assert torch.equal(found.features, expected.features)
        assert torch.equal(found.labels, expected.labels)
        assert dataset.skipped == ["picture 5"]


def test_pool_reaches_the_model() -> None:
    found = extract_features(Model(), Pictures(3), TRANSFORM, pool="class")
    torch.testing.assert_close(found.features.flatten(), torch.tensor([0.0, -1.0, -2.0]))


def test_a_function_may_give_anything_that_flattens() -> None:
    found = extract_features(lambda images: images, Pictures(3), TRANSFORM)
    torch.testing.assert_close(found.features, torch.arange(3.0)[:, None].expand(3, 16) / 255)


def test_images_are_counted_while_they_pass() -> None:
    seen: list[int] = []
    extract_features(Model(), Pictures(11), TRANSFORM, batch_size=4, on_images=seen.append)
    assert seen == [4, 4, 3]


def test_features_of_a_network_in_inference_mode_can_be_trained_on() -> None:
    weight = torch.randn(16, 2, generator=rng.generator(0)).requires_grad_()

    @torch.inference_mode()
    def function(images: Tensor) -> Tensor:
        return images.flatten(1) * 2

    found = extract_features(function, Pictures(3), TRANSFORM)
    (found.features @ weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("num_workers", [0, 2])
def test_sets_without_labels_or_images_are_refused(num_workers: int) -> None:
    with pytest.raises(ValueError, match="pictures has no labels"):
        extract_features(Model(), Pictures(labelled=False), TRANSFORM, num_workers=num_workers)
    with pytest.raises(ValueError, match="none of the 3 images of pictures could be read"):
        extract_features(Model(), Pictures(3, broken=(0, 1, 2)), TRANSFORM, num_workers=num_workers)
