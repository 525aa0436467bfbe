"""The ranking of a folder: every readable image with its own numbers, the most surprising first."""

import csv
from pathlib import Path

import pytest
import torch

import mage
from mage import images
from mage.data.datasets import FolderDataset, ImageDataset, load_dataset
from mage.evaluation.anomaly import Scoring
from mage.recipes import named
from mage.runs.anomalies import COLUMNS, measure_normal, pictures, rank_images, write_scores

SIZES = ((8, 8), (20, 30), (16, 9), (40, 40), (8, 12), (11, 11))


@pytest.fixture(scope="module")
def model() -> mage.Mage:
    smoke = named("smoke")
    return mage.build(smoke.model, tokenizer=smoke.tokenizer, precision="float32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, size in enumerate(SIZES):
        pixels = torch.rand(3, *size, generator=torch.Generator().manual_seed(number))
        images.save_png(tmp_path / "photos" / ("deep" if number % 2 else ".") / f"{number}.png", pixels)
    (tmp_path / "photos" / "broken.png").write_text("no image")
    return tmp_path / "photos"


def opened(folder: Path, channels: int = 1) -> FolderDataset:
    dataset = load_dataset(folder, split="all", channels=channels)
    assert isinstance(dataset, FolderDataset)
    return dataset


def test_images_of_any_size_are_ranked_by_their_own_surprise(model: mage.Mage, folder: Path) -> None:
    dataset = opened(folder)
    ranked = rank_images(model, dataset, Scoring(pool="mean", scale="none"), batch_size=2)
    assert dataset.skipped == [str(folder / "broken.png")]
    assert len(ranked) == len(SIZES)
    assert [image.score for image in ranked] == sorted((image.score for image in ranked), reverse=True)
    names = dataset.names()
    for image in ranked:
        own = model.surprise(model.transform(folder / names[image.index])[None])
        assert image.score == image.mean == pytest.approx(float(own.mean()), abs=1e-4)
        assert image.max == pytest.approx(float(own.max()), abs=1e-4)
        assert image.mean <= image.top <= image.max
    above = {image.index: image.score for image in rank_images(model, dataset, Scoring(pool="mean"), batch_size=2)}
    for image in ranked:
        own = model.surprise_and_expected(model.encode(model.transform(folder / names[image.index])[None]))
        assert above[image.index] == pytest.approx(float((own.found - own.expected).mean()), abs=1e-4)


def test_numbers_of_an_image_do_not_depend_on_the_others(model: mage.Mage, folder: Path) -> None:
    whole = {image.index: image for image in rank_images(model, opened(folder), Scoring(draws=2), batch_size=4)}
    names = opened(folder).names()
    for name in names:
        if name not in ("broken.png", "0.png"):
            (folder / name).unlink()
    (alone,) = rank_images(model, opened(folder), Scoring(draws=2), batch_size=4)
    assert alone.score == pytest.approx(whole[names.index("0.png")].score, abs=1e-5)


def test_without_a_readable_image_there_is_no_ranking(model: mage.Mage, folder: Path) -> None:
    for file in folder.rglob("[0-9].png"):
        file.write_text("no image")
    with pytest.raises(ValueError, match="none of the 7 images"):
        rank_images(model, opened(folder), Scoring())


def test_a_scale_compares_with_normal_images(model: mage.Mage, folder: Path) -> None:
    digits: ImageDataset = load_dataset("digits")
    scoring = Scoring(scale="position", pool="mean")
    few = mage.data.datasets.Subset(digits, range(20))
    done: list[int] = []
    normal = measure_normal(model, few, scoring, batch_size=8, on_images=done.append)
    assert done == [8, 8, 4]
    shown = images.to_float(torch.stack([few.load(index) for index in range(20)]))
    maps = model.surprise(shown)
    torch.testing.assert_close(normal.mean, maps.mean(dim=0))
    ranked = rank_images(model, opened(folder), scoring, normal)
    drawn = pictures(model, opened(folder), ranked[:3], scoring, normal)
    for image, heat in zip(ranked[:3], drawn.heat, strict=True):
        assert image.score == pytest.approx(float(heat.mean()), abs=1e-4)
    assert drawn.images.shape == (3, 1, 8, 8)
    with pytest.raises(ValueError, match="needs normal images"):
        rank_images(model, opened(folder), scoring)


def test_scores_are_a_table_with_a_row_per_readable_image(model: mage.Mage, folder: Path, tmp_path: Path) -> None:
    (folder / '1, 2\rand "3".png').write_bytes((folder / "0.png").read_bytes())
    dataset = opened(folder)
    ranked = rank_images(model, dataset, Scoring())
    write_scores(tmp_path / "out" / "scores.csv", ranked, dataset.names())
    with open(tmp_path / "out" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["rank"]) for row in rows] == list(range(1, len(SIZES) + 2))
    assert {row["file"] for row in rows} == set(dataset.names()) - {"broken.png"}
    for row, image in zip(rows, ranked, strict=True):
        assert float(row["score"]) == pytest.approx(image.score, rel=1e-5)
        assert float(row["reconstruction_error"]) == pytest.approx(image.error, rel=1e-5)
