"""Scores of images: maps, scales and pools as they are defined, with plain loops."""

import statistics
from dataclasses import replace

import pytest
import torch

import mage
from mage.evaluation.anomaly import Maps, Normal, Scoring, auroc, maps_of, pooled, scaled, scores
from mage.recipes import named


def drawn(count: int, seed: int = 0) -> Maps:
    generator = torch.Generator().manual_seed(seed)
    found, expected = torch.rand(2, count, 5, 6, generator=generator) * 4
    return Maps(found, expected, torch.rand(count, 5, 6, generator=generator))


def test_pools_are_mean_largest_and_mean_of_the_largest_tenth() -> None:
    values = drawn(4).surprise
    for image, mean, most, top in zip(
        values, pooled(values, "mean"), pooled(values, "max"), pooled(values, "top"), strict=True
    ):
        numbers = sorted(image.flatten().tolist(), reverse=True)
        assert mean == pytest.approx(statistics.mean(numbers))
        assert most == numbers[0]
        assert top == pytest.approx(statistics.mean(numbers[:3]))
    few = torch.tensor([[[1.0, 3.0], [2.0, 0.0]]])
    assert pooled(few, "top").tolist() == [3.0], "the tenth of four tokens is one"


def test_positions_are_compared_with_the_same_position_of_normal_images() -> None:
    usual, maps = drawn(7), drawn(3, seed=1)
    usual.surprise[:, 0, 0] = 0.25  # a background that never varies
    normal = Normal.of(usual)
    found = scaled(maps, "position", normal)
    spreads = [statistics.stdev(usual.surprise[:, i, j].tolist()) for i in range(5) for j in range(6)]
    least = 0.1 * statistics.mean(spreads)
    for i in range(5):
        for j in range(6):
            values = usual.surprise[:, i, j].tolist()
            spread = max(statistics.stdev(values), least)
            expected = (float(maps.surprise[2, i, j]) - statistics.mean(values)) / spread
            assert found[2, i, j] == pytest.approx(expected, rel=1e-4)


def test_errors_divide_surprise_and_a_cell_without_an_error_stays_finite() -> None:
    usual, maps = drawn(7), drawn(3, seed=1)
    maps.error[0, 0, 0] = 0
    found = scaled(maps, "error", Normal.of(usual))
    mean = statistics.mean(usual.error.flatten().tolist())
    for place in ((0, 0, 0), (1, 2, 3)):
        expected = float(maps.surprise[place]) / (float(maps.error[place]) + mean)
        assert found[place] == pytest.approx(expected, rel=1e-5)
    perfect = Maps(usual.surprise, usual.expected, torch.zeros_like(usual.error))
    assert scaled(perfect, "error", Normal.of(perfect)).isfinite().all()


def test_scores_scale_first_and_pool_then() -> None:
    usual, maps = drawn(7), drawn(3, seed=1)
    normal = Normal.of(usual)
    found = scores(maps, Scoring(pool="max", scale="position"), normal)
    assert torch.equal(found, scaled(maps, "position", normal).flatten(1).amax(dim=1))
    assert torch.equal(scores(maps, Scoring(pool="mean", scale="none")), maps.surprise.mean(dim=(1, 2)))
    above = (maps.surprise - maps.expected).mean(dim=(1, 2))
    assert torch.equal(scores(maps, Scoring(pool="mean")), above)
    with pytest.raises(ValueError, match="'position' needs normal images"):
        scores(maps, Scoring(scale="position"))
    with pytest.raises(ValueError, match="at least two images"):
        Normal.of(drawn(1))


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    generator = torch.Generator().manual_seed(0)
    normal, new = (torch.randint(9, (count,), generator=generator).float() for count in (30, 20))
    pairs = [(a, b) for a in normal.tolist() for b in new.tolist()]
    right = statistics.mean((b > a) + 0.5 * (a == b) for a, b in pairs)
    assert auroc(normal, new) == pytest.approx(right)
    assert auroc(torch.zeros(3), torch.ones(2)) == 1.0
    assert auroc(torch.ones(3), torch.zeros(2)) == 0.0


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_are_the_surprise_and_the_error_of_each_cell(channels: int) -> None:
    recipe = named("smoke")
    assert recipe.tokenizer is not None
    config = replace(recipe.tokenizer, channels=channels)
    model = mage.build(recipe.model, tokenizer=config, precision="float32")
    pixels = torch.rand(3, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    found = maps_of(model, pixels, Scoring(parts=3, draws=2, seed=4), batch_size=2)
    torch.testing.assert_close(found.surprise, model.surprise(pixels, parts=3, draws=2, seed=4))
    shown = model.decode_tokens(model.encode(pixels))
    for row, column in ((0, 0), (1, 3), (3, 2)):
        differences = [
            float(pixels[1, c, y, x] - shown[1, c, y, x]) ** 2
            for c in range(channels)
            for y in range(2 * row, 2 * row + 2)
            for x in range(2 * column, 2 * column + 2)
        ]
        assert found.error[1, row, column] == pytest.approx(statistics.mean(differences) ** 0.5, rel=1e-4)
