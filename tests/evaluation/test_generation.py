"""Metrics of generated images: slow twins, torch-fidelity, streaming, files, names."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mage import rng
from mage.evaluation.extractors import Extractor, Seen
from mage.evaluation.feature_statistics import FeatureStatistics
from mage.evaluation.frechet import frechet_distance
from mage.evaluation.generation import compare
from mage.evaluation.generation_metrics import count_name
from mage.evaluation.inception_sums import InceptionScoreSums
from mage.evaluation.kernel_distance import kernel_distance, squared_mmd
from mage.evaluation.manifold import manifold
from mage.evaluation.seen import GenerationProtocol, Reference, SeenImages, look_at
from tests.reference import generation as slow

SMALL = GenerationProtocol(parts=2, subsets=3, subset_size=20)


def noise(*shape: int, name: str = "noise") -> Tensor:
    return torch.randn(shape, generator=rng.generator(0, name))


def seen(features: Tensor, logits: Tensor | None = None, protocol: GenerationProtocol = SMALL) -> SeenImages:
    found = SeenImages("toy", len(features), protocol)
    parts = zip(features.split(7), [None] * len(features) if logits is None else logits.split(7), strict=False)
    for part, scores in parts:
        found.update(Seen(part, scores))
    return found


def scores(logits: Tensor, parts: int = 1) -> InceptionScoreSums:
    sums = InceptionScoreSums(len(logits), parts=parts)
    for part in logits.split(5):
        sums.update(part)
    return sums


def test_inception_score_agrees_with_plain_loops() -> None:
    logits = 3 * noise(13, 4)
    assert scores(logits).score().mean == pytest.approx(slow.inception_score(logits.double().tolist()), rel=1e-9)


def test_inception_score_has_known_ends() -> None:
    sure = torch.eye(5).repeat(8, 1) * 1000
    assert scores(sure, parts=1).score().mean == pytest.approx(5)
    assert scores(torch.zeros(40, 5), parts=4).score().mean == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 10 images"):
        InceptionScoreSums(9)
    short = InceptionScoreSums(20)
    short.update(torch.zeros(19, 3))
    with pytest.raises(ValueError, match="20 images were announced, 19 came"):
        short.score()
    with pytest.raises(ValueError, match="more came"):
        short.update(torch.zeros(2, 3))


def test_kernel_distance_agrees_with_plain_loops() -> None:
    x, y = noise(9, 4, name="x").double(), noise(9, 4, name="y").double() + 0.5
    assert squared_mmd(x, y) == pytest.approx(slow.squared_mmd(x.tolist(), y.tolist()), rel=1e-9)


def test_kernel_distance_of_one_distribution_is_near_zero() -> None:
    x = noise(400, 8)
    same = kernel_distance(x[:200], x[200:], subsets=20, subset_size=100)
    other = kernel_distance(x[:200], x[200:] + 1, subsets=20, subset_size=100)
    assert abs(same.mean) < 0.1 * other.mean
    with pytest.raises(ValueError, match="cannot be drawn"):
        kernel_distance(x[:50], x, subset_size=51)


@pytest.mark.parametrize("chunk", [2, 7, 1000])
def test_manifold_agrees_with_plain_loops(chunk: int) -> None:
    generated, real = noise(23, 3, name="generated").double() + 0.4, noise(17, 3, name="real").double()
    found = manifold(generated, real, neighbours=2, density_neighbours=3, chunk=chunk)
    expected = slow.manifold(generated.tolist(), real.tolist(), 2, 3)
    assert vars(found) == pytest.approx(expected)
    assert 0 < found.precision < 1
    assert 0 < found.recall < 1


def test_manifold_does_not_depend_on_where_the_features_lie() -> None:
    generated, real = noise(60, 8, name="generated") + 0.3, noise(50, 8, name="real")
    far = [
        (part * 1024).round() / 1024 + 4096 for part in (generated, real)
    ]  # steps that float32 holds at either place
    near = [part - 4096 for part in far]
    assert manifold(*far) == manifold(*near)
    assert 0 < manifold(*near).precision < 1


@pytest.mark.parametrize("tied", [False, True])
def test_manifold_agrees_with_the_papers_code(tied: bool) -> None:
    """The code of density and coverage leaves the edge of a ball out, that of precision and recall takes it in."""
    theirs = pytest.importorskip("prdc")
    fidelity = pytest.importorskip("torch_fidelity.metric_prc")
    generated, real = noise(90, 3, name="generated") + 0.3, noise(80, 3, name="real")
    if tied:
        generated, real = generated.mul(2).round(), real.mul(2).round()
    found = manifold(generated, real, neighbours=3, density_neighbours=5)
    dense = theirs.compute_prdc(real.numpy(), generated.numpy(), nearest_k=5)
    assert found.density == pytest.approx(dense["density"])
    assert found.coverage == pytest.approx(dense["coverage"])
    shares = fidelity.prc_features_to_metric(generated.double(), real.double(), verbose=False)
    assert found.precision == pytest.approx(shares["precision"])
    assert found.recall == pytest.approx(shares["recall"])


def test_manifold_knows_copies_and_strangers() -> None:
    real = noise(50, 4)
    copied, strange = manifold(real, real), manifold(real + 100, real)
    assert (copied.precision, copied.recall, copied.coverage) == (1, 1, 1)
    assert (strange.precision, strange.recall, strange.density, strange.coverage) == (0, 0, 0, 0)
    collapsed = manifold(real[:1].expand(50, -1) + 1e-4 * noise(50, 4, name="tiny"), real)
    assert collapsed.precision > 0.9
    assert collapsed.recall < 0.1
    assert collapsed.coverage < 0.3
    with pytest.raises(ValueError, match="more than 5 images"):
        manifold(real[:5], real)


def test_agreement_with_torch_fidelity() -> None:
    fidelity = pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    assert fidelity.__version__
    x, y, logits = noise(300, 16, name="x") * 1.2, noise(250, 16, name="y") + 0.1, 2 * noise(300, 10, name="logits")
    protocol = GenerationProtocol(subsets=10, subset_size=100)
    ours = compare(seen(x, logits, protocol), Reference.of("test", seen(y, None, protocol)), "toy", protocol=protocol)
    kid = kid_features_to_metric(x, y, kid_subsets=10, kid_subset_size=100, verbose=False)
    theirs = {
        "fd_toy_test300": fid_statistics_to_metric(
            fid_features_to_statistics(x), fid_features_to_statistics(y), verbose=False
        )["frechet_inception_distance"],
        "is_toy_test300": isc_features_to_metric(logits)["inception_score_mean"],
        "kd_toy_test300": kid["kernel_inception_distance_mean"],
        **{
            f"{name}_toy_test300": value
            for name, value in prc_features_to_metric(x, y, save_cpu_ram=False, verbose=False).items()
            if name in ("precision", "recall")
        },
    }
    for name, value in theirs.items():
        assert ours.metrics[name] == pytest.approx(value, rel=1e-3), name


def test_a_set_has_no_distance_from_itself() -> None:
    features = noise(500, 32).abs() * torch.linspace(0.01, 10, 32)
    statistics = seen(features).moments
    assert frechet_distance(statistics, statistics) < 1e-6 * float(statistics.covariance.trace())


def test_batches_change_nothing_and_memory_is_bounded() -> None:
    features, logits = noise(200, 6), noise(200, 3, name="logits")
    protocol = GenerationProtocol(parts=2, subsets=2, subset_size=10, kept=50)
    reference = Reference.of("real", seen(noise(80, 6, name="real"), None, protocol))
    whole = SeenImages("toy", 200, protocol)
    whole.update(Seen(features, logits))
    parts = seen(features, logits, protocol)
    assert whole.features.shape == parts.features.shape == (50, 6)
    first, second = (compare(one, reference, "toy", protocol=protocol).metrics for one in (whole, parts))
    assert first == pytest.approx(second, rel=1e-9)
    assert not torch.equal(parts.features, features[:50]), "the ones kept are spread over all"


def test_names_say_extractor_reference_and_number() -> None:
    samples, real = seen(noise(40, 4), noise(40, 3)), seen(noise(30, 4, name="real"))
    found = compare(samples, Reference.of("val", real), "toy", protocol=SMALL, suffix="_real")
    assert set(found.metrics) == {
        f"{kind}_toy_val40_real" for kind in ("fd", "is", "kd", "precision", "recall", "density", "coverage")
    }
    assert set(found.metrics) == set(found.protocols)
    assert "fid_inception_val40" in compare(samples, Reference.of("val", real), "inception", protocol=SMALL).metrics
    assert [count_name(count) for count in (500, 1000, 1500, 50_000)] == ["500", "1k", "1500", "50k"]


def test_what_cannot_be_measured_is_said() -> None:
    few = seen(noise(4, 3))
    found = compare(few, Reference.of("test", seen(noise(9, 3, name="other"))), "toy", protocol=SMALL)
    assert set(found.metrics) == {"fd_toy_test4", "kd_toy_test4"}
    assert len(found.left_out) == 2


@pytest.mark.parametrize(("samples", "real", "warned"), [(32, 100, 32), (100, 30, 30), (100, 33, None)])
def test_a_frechet_distance_of_fewer_images_than_features_is_warned_of(
    samples: int, real: int, warned: int | None
) -> None:
    found = compare(
        seen(noise(samples, 32)), Reference.of("test", seen(noise(real, 32, name="real"))), "toy", protocol=SMALL
    )
    if warned is None:
        assert found.warnings == []
    else:
        assert f"fd_toy_test{samples} is of {warned} images" in found.warnings[0]
        assert "covariance of 32 features" in found.warnings[0]


def test_other_extractors_are_refused() -> None:
    other = SeenImages("another", 20, SMALL)
    other.update(Seen(noise(20, 4), None))
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(seen(noise(20, 4)), Reference.of("test", other), "toy", protocol=SMALL)


def test_reference_files_come_back(tmp_path: Path) -> None:
    real, samples = seen(noise(60, 4, name="real")), seen(noise(40, 4))
    real.save(tmp_path / "test.npz")
    direct = compare(samples, Reference.of("test", real), "toy", protocol=SMALL)
    loaded = compare(samples, Reference.load(tmp_path / "test.npz", extractor="toy"), "toy", protocol=SMALL)
    assert loaded.metrics == pytest.approx(direct.metrics, rel=1e-9)
    with np.load(tmp_path / "test.npz") as data:
        assert {"mu", "sigma"} <= set(data), "the names that ADM's and pytorch-fid's readers look for"
        np.testing.assert_allclose(data["sigma"], np.cov(real.features.double().numpy().T), rtol=1e-6)


def test_files_of_others_give_a_frechet_distance(tmp_path: Path) -> None:
    real, samples = noise(60, 4, name="real").double(), seen(noise(40, 4))
    arrays = {"mu": real.mean(dim=0).numpy(), "sigma": np.cov(real.numpy().T), "mu_s": np.zeros(3)}
    np.savez(tmp_path / "adm.npz", allow_pickle=False, **arrays)
    reference = Reference.load(tmp_path / "adm.npz", extractor="toy")
    found = compare(samples, reference, "toy", protocol=SMALL)
    expected = frechet_distance(samples.moments, seen(real.float()).moments)
    assert found.metrics == pytest.approx({"fd_toy_adm40": expected}, rel=1e-4)
    assert any("no features of single images" in reason for reason in found.left_out)
    with pytest.raises(ValueError, match="features cannot be added to them"):
        reference.moments.update(noise(3, 4))


@pytest.mark.parametrize(
    "arrays",
    [
        {"mu": np.zeros(3)},
        {"mu": np.zeros(3), "sigma": np.zeros((2, 2))},
        {"mu": np.array(["a"])},
        {"mu": np.array(1.0), "sigma": np.eye(1)},
        {"mu": np.zeros((2, 1)), "sigma": np.eye(2)},
        {"mu": np.zeros(2), "sigma": np.eye(2), "features": np.zeros((4, 3))},
    ],
)
def test_other_files_are_refused(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", allow_pickle=False, **arrays)
    with pytest.raises(ValueError, match="does not hold feature statistics"):
        FeatureStatistics.load_with_features(tmp_path / "x.npz")


def test_looking_counts_images() -> None:
    extractor = Extractor("toy", "toy", lambda pixels: Seen(pixels.float().mean(dim=(2, 3)), None))
    batches = [torch.randint(0, 256, (5, 3, 4, 4), generator=rng.generator(1), dtype=torch.uint8) for _ in range(2)]
    counted: list[int] = []
    found = look_at(batches, extractor, 10, on_images=counted.append)
    assert counted == [5, 5]
    assert found.count == 10
    with pytest.raises(ValueError, match="11 images were announced, 10 came"):
        look_at(batches, extractor, 11)
    with pytest.raises(ValueError, match="more came"):
        look_at(batches, extractor, 9)
    with pytest.raises(ValueError, match="grey or RGB"):
        extractor(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))
    assert math.isfinite(found.moments.mean.sum())
