"""Maps, groups, near-duplicates and outliers, on features with known answers and compared with plain loops."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from mage import rng
from mage.evaluation.clusters import MOST_CLUSTERS, find_clusters
from mage.evaluation.folder_map import COMPONENTS, FEWEST, principal_components, project, standardised
from mage.evaluation.neighbours import DUPLICATE_SHARE, NEIGHBOURS, neighbourhood


def blobs(sizes: tuple[int, ...], width: int = 64, apart: float = 8.0) -> torch.Tensor:
    """Groups of random points around far centres."""
    centres = apart * torch.randn(len(sizes), width, generator=rng.generator(0, "centres"), dtype=torch.float64)
    parts = [
        centre + torch.randn(size, width, generator=rng.generator(number, "blob"), dtype=torch.float64)
        for number, (size, centre) in enumerate(zip(sizes, centres, strict=True))
    ]
    return torch.cat(parts)


def test_principal_components_are_those_of_scikit_learn() -> None:
    x = standardised(blobs((40, 30)))
    found = principal_components(x)
    expected = PCA(COMPONENTS, svd_solver="full").fit_transform(x.numpy())
    assert found.shape == (70, COMPONENTS)
    np.testing.assert_allclose(np.abs(found[:, :10]), np.abs(expected[:, :10]), atol=1e-6)
    few = principal_components(standardised(torch.randn(3, 5, generator=rng.generator(0), dtype=torch.float64)))
    assert few.shape == (3, 3)


def test_a_feature_that_never_varies_does_not_become_noise() -> None:
    x = blobs((20,), width=4)
    x[:, 2] = 1e6 + 1e-9 * torch.arange(20)
    found = standardised(x)
    assert (found[:, 2] == 0).all()
    torch.testing.assert_close(found[:, 0].std(correction=0), torch.ones((), dtype=torch.float64))
    assert (standardised(torch.ones(5, 3, dtype=torch.float64)) == 0).all()


def test_groups_that_are_far_apart_stay_together_on_the_map() -> None:
    x = blobs((40, 40, 40))
    found = project(principal_components(standardised(x)))
    assert found.positions.min() == 0
    assert found.positions.max() == 1
    assert "t-SNE" in found.method
    groups = found.positions.reshape(3, 40, 2)
    centres = groups.mean(axis=1)
    inside = np.linalg.norm(groups - centres[:, None], axis=2).max()
    between = min(np.linalg.norm(centres[a] - centres[b]) for a in range(3) for b in range(a))
    assert inside < between / 2
    again = project(principal_components(standardised(x)))
    assert np.array_equal(found.positions, again.positions), "the same folder has the same map"


@pytest.mark.parametrize("count", [1, 2, 3, FEWEST - 1, FEWEST, 12])
def test_small_folders_have_a_map_groups_and_neighbours(count: int) -> None:
    x = standardised(torch.randn(count, 5, generator=rng.generator(0, "few"), dtype=torch.float64))
    components = principal_components(x)
    found = project(components)
    assert found.positions.shape == (count, 2)
    assert np.isfinite(found.positions).all()
    assert 1 <= find_clusters(components).count <= max(1, count - 1)
    assert neighbourhood(x).distance.shape == (count, min(NEIGHBOURS, count - 1))


def test_images_that_are_all_equal_are_one_group_and_no_outliers() -> None:
    x = standardised(torch.ones(30, 6, dtype=torch.float64))
    components = principal_components(x)
    assert np.isfinite(project(components).positions).all()
    assert find_clusters(components).count == 1
    assert find_clusters(components, 4).count == 1, "not more groups than different images"
    near = neighbourhood(x)
    assert (near.unusualness == 0).all()
    assert near.near_duplicates()
    assert {pair.distance for pair in near.near_duplicates()} == {0}


def test_among_copies_of_one_image_the_others_are_the_outliers() -> None:
    """With ten copies each, most images have a mean distance of 0 to their neighbours."""
    x = torch.cat([torch.zeros(30, 6), 1 + torch.rand(10, 6, generator=rng.generator(0))]).double()
    near = neighbourhood(x)
    assert near.typical > 0
    assert set(near.outliers(10)) == set(range(30, 40))


def test_the_number_of_groups_is_found_and_the_largest_comes_first() -> None:
    components = principal_components(standardised(blobs((20, 50, 35, 15))))
    found = find_clusters(components)
    assert [len(found.members(cluster)) for cluster in range(found.count)] == [50, 35, 20, 15]
    assert set(found.members(0)) == set(range(20, 70))
    distances = found.distances[found.members(0)]
    assert (np.diff(distances) >= 0).all(), "those closest to the centre first"
    assert f"of 2 to {MOST_CLUSTERS} clusters, 4 have" in found.method
    assert find_clusters(components, 2).count == 2
    for wrong in (0, 121):
        with pytest.raises(ValueError, match="1 to 120 clusters"):
            find_clusters(components, wrong)


def test_neighbours_are_those_of_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mage.evaluation.neighbours.ROWS_AT_ONCE", 7)
    x = blobs((15, 10), width=3)
    found = neighbourhood(x, neighbours=4)
    for row in range(25):
        others = sorted((float((x[row] - x[other]).norm()), other) for other in range(25) if other != row)[:4]
        assert found.index[row].tolist() == [other for _, other in others]
        assert found.distance[row].tolist() == pytest.approx([distance for distance, _ in others])


def test_equal_images_have_distance_zero_exactly_whatever_their_size() -> None:
    """By dot products in float32 they would be about a thousandth of their norm apart."""
    x = 1e4 + torch.randn(200, 128, generator=rng.generator(0, "large"), dtype=torch.float64)
    x[150] = x[3]
    pairs = neighbourhood(x).near_duplicates()
    assert [tuple(pair) for pair in pairs] == [(3, 150, 0.0)]
    single = x.float()
    rough = single.square().sum(1)[3] + single.square().sum(1)[150] - 2 * single[3] @ single[150]
    assert rough.abs().sqrt() > 0.1, "what float32 would have given"


def test_near_duplicates_are_pairs_within_half_the_typical_distance_once_each() -> None:
    x = blobs((60,))
    x[10] = x[40] + 0.05 * torch.randn(64, generator=rng.generator(0, "noise"), dtype=torch.float64)
    found = neighbourhood(x)
    pairs = found.near_duplicates()
    assert [(pair.first, pair.second) for pair in pairs] == [(10, 40)]
    assert 0 < pairs[0].distance <= DUPLICATE_SHARE
    expected = float((x[10] - x[40]).norm()) / float(found.distance.mean(dim=1).median())
    assert pairs[0].distance == pytest.approx(expected)


def test_the_image_far_from_all_others_is_the_first_outlier() -> None:
    x = blobs((60,))
    x[17] += 20
    found = neighbourhood(x)
    assert found.outliers(3)[0] == 17
    assert found.unusualness[17] > 3
    assert float(found.unusualness.median()) == pytest.approx(1)
