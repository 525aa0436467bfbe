"""Pictures of model cards: what the edits redraw, which training image stands beside a sample, and their size."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import mage
from mage import images, pictures, rng
from mage.recipes import named

STUDIES = Path(__file__).resolve().parent.parent / "studies"


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(STUDIES))
    import sheets as module

    yield module
    sys.modules.pop("sheets")


def noise(count: int, side: int, name: str = "noise") -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=rng.generator(0, name))


@pytest.mark.parametrize(("side", "cell"), [(8, 2), (28, 4), (32, 4), (64, 4)])
def test_edits_redraw_whole_tokens_and_leave_some(sheets: Any, side: int, cell: int) -> None:
    for mask in sheets.masks((side, side), cell):
        tokens = mask.float().reshape(side // cell, cell, side // cell, cell).mean(dim=(1, 3))
        assert set(tokens.flatten().tolist()) == {0.0, 1.0}
        assert 0.2 < float(mask.float().mean()) < 0.6


def test_edits_show_each_image_before_marked_and_after(sheets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    smoke = named("smoke")
    model = mage.build(smoke.model, tokenizer=smoke.tokenizer, precision="float32", device="cpu")
    rows: list[tuple[str, torch.Tensor]] = []
    monkeypatch.setattr(pictures, "labelled_rows", lambda given: rows.extend(given) or torch.zeros(1, 2, 2))
    given = torch.rand(4, 1, 8, 8, generator=rng.generator(0, "given"))
    sheets.edits(model, given)
    (_, before), (_, marked), (_, after) = rows
    assert torch.equal(before, given)
    outside = marked == given
    assert 0.4 < float(outside.float().mean()) < 0.8
    assert torch.equal(after[outside], given[outside])
    assert not torch.equal(after, given)


def test_pairs_are_the_closest_and_those_in_the_middle(sheets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = images.to_uint8(noise(40, 4))
    training = images.to_float(stored)
    noisy = torch.linspace(0, 0.2, 20)[:, None, None, None] * noise(20, 4, "more")
    samples = (training[:20] + noisy)[torch.arange(20).flip(0)]
    blocks: list[list[tuple[str, torch.Tensor]]] = []
    monkeypatch.setattr(pictures, "labelled_rows", lambda rows: blocks.append(rows) or torch.zeros(3, 2, 2))
    sheets.nearest(samples, stored, mirrored=False)
    closest, middle = blocks
    for rank, (label, pair) in enumerate(closest):
        assert torch.equal(pair[0], samples[19 - rank])
        assert torch.equal(pair[1], training[rank])
        assert float(label) == pytest.approx(float((pair[0] - pair[1]).square().mean().sqrt()), abs=1e-3)
    assert closest[0][0] == "0.000"
    assert [float(label) for label, _ in middle] > [float(label) for label, _ in closest]
    assert torch.equal(middle[0][1][1], training[7])


def test_a_picture_of_many_colours_gets_a_palette_and_no_other_does(sheets: Any, tmp_path: Path) -> None:
    sheets.save(tmp_path / "many.png", noise(1, 400)[0])
    assert (tmp_path / "many.png").stat().st_size < sheets.MOST_BYTES
    with Image.open(tmp_path / "many.png") as many:
        assert (many.mode, many.size) == ("P", (400, 400))
    sheets.save(tmp_path / "few.png", noise(1, 40)[0])
    assert torch.equal(images.load_image(tmp_path / "few.png"), images.to_uint8(noise(1, 40)[0]))
