"""The page of anomalies: one file that loads nothing, and heat where the numbers say."""

import re
from dataclasses import replace

import pytest
import torch

from mage.report.anomalies import HEAT, MOST_OPAQUE, AnomalyPage, Shown, build_anomalies, heat_range, with_heat


def shown(name: str, rank: int, channels: int = 1) -> Shown:
    generator = torch.Generator().manual_seed(rank)
    return Shown(
        name, rank, 5.0 - rank, torch.rand(channels, 8, 12, generator=generator), torch.rand(2, 3, generator=generator)
    )


def page(channels: int = 1) -> AnomalyPage:
    return AnomalyPage(
        "/photos/new", "runs/photos", "The score is a sentence.", "nats", [4.0, 3.0, 2.0, 1.0],
        [shown("a <b>.png", 1, channels), shown("b.png", 2, channels)], [shown("z.png", 4, channels)],
        ["broken.png"],
    )  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_page_is_one_file_with_both_ends_of_the_ranking(channels: int) -> None:
    html = build_anomalies(page(channels))
    assert "<script" not in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "url(" not in html
    assert html.count('src="data:image/png;base64,') == 3
    for text in ("1. a &lt;b&gt;.png, score 4", "4. z.png", "Highest scores", "Lowest scores", "broken.png", "nats"):
        assert text in html
    assert "<b>.png" not in html
    assert "The score is a sentence." in html


def test_sections_without_images_are_left_out() -> None:
    single = AnomalyPage("/photos", "m", "x", "nats", [1.0], [shown("a.png", 1)], [], [])
    html = build_anomalies(single)
    assert "Lowest scores" not in html
    assert "Left out" not in html
    assert "Highest scores" not in build_anomalies(replace(single, highest=[]))


def test_heat_colours_its_own_cell_by_its_size_and_leaves_what_is_low_clear() -> None:
    image = torch.full((1, 8, 12), 0.5)
    heat = torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.0, -1.0]])
    drawn = with_heat(image, heat, 0.0, 2.0)
    rows, columns = drawn.shape[1] // 2, drawn.shape[2] // 3
    assert max(drawn.shape[1:]) >= 224
    colour = torch.tensor(HEAT)
    for (row, column), share in {(0, 0): 0.0, (0, 2): 1.0, (1, 0): 0.5, (1, 2): 0.0}.items():
        cell = drawn[:, row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        expected = 0.5 * (1 - share * MOST_OPAQUE) + colour * share * MOST_OPAQUE
        torch.testing.assert_close(cell, expected[:, None, None].expand_as(cell))


def test_all_maps_have_one_scale_from_the_median_to_the_largest() -> None:
    low, high = heat_range([torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[2.0, 9.0, 2.0]])])
    assert (low, high) == (2.0, 9.0)
    flat = with_heat(torch.rand(1, 4, 4), torch.ones(2, 2), 1.0, 1.0)
    assert flat.isfinite().all()
