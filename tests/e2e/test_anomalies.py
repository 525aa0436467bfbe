"""`mage anomalies` on a folder: table, page, JSON and skipped files."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import mage
from mage.runs.anomalies import Scored, write_scores

Command = Callable[..., SimpleNamespace]


def test_a_folder_becomes_a_table_and_a_page(disk: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(disk.root / "folder", folder)
    shutil.copy(disk.root / "photo.png", folder / "photo.png")
    shutil.copy(disk.root / "text.png", folder / "broken.png")
    words = ("anomalies", folder, "--model", disk.root / "model", "--precision", "float32", "--top", 3)
    told = command(*words, "--out", tmp_path / "a", "--batch-size", 7)
    assert told.code == 0, told.err
    assert "41 images" in told.out
    assert "1 unreadable files skipped" in told.out
    assert "broken.png" in told.out
    result = json.loads(command(*words, "--out", tmp_path / "b", "--json").out)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["anomalies.html", "scores.csv"]
    tables = [list(csv.DictReader((tmp_path / name / "scores.csv").read_text().splitlines())) for name in ("a", "b")]
    scores = [
        {row.pop("file"): [float(value) for value in list(row.values())[1:]] for row in table} for table in tables
    ]
    assert scores[0].keys() == scores[1].keys()
    for file, values in scores[0].items():
        assert values == pytest.approx(scores[1][file], abs=2e-5), "batches of other sizes round differently"
    with open(tmp_path / "b" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["images"] == 41
    assert [row["file"] for row in rows[:3]] == [found["file"] for found in result["highest"]]
    assert result["skipped"] == [str(folder / "broken.png")]
    html = (tmp_path / "b" / "anomalies.html").read_text()
    for row in (*rows[:3], *rows[-3:]):
        assert f"{row['rank']}. {row['file']}" in html
    assert rows[20]["file"] not in html
    assert "broken.png" in html
    model = mage.load(disk.root / "model", precision="float32")
    own = model.surprise(model.transform(folder / rows[0]["file"])[None])
    assert abs(float(rows[0]["surprise_mean"]) - float(own.mean())) < 1e-4


def test_normal_images_may_be_a_folder(disk: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    words = ("anomalies", disk.root / "folder" / "a", "--model", disk.root / "model", "--scale", "position")
    made = command(*words, "--normal", disk.root / "folder" / "b", "--out", tmp_path / "out", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["scoring"]["scale"] == "position"


def test_a_data_set_by_name_is_ranked(disk: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    words = ("anomalies", "digits", "--model", disk.root / "model", "--parts", 2, "--draws", 1, "--batch-size", 256)
    made = command(*words, "--out", tmp_path / "out", "--json")
    assert made.code == 0, made.err
    found = json.loads(made.out)
    assert found["images"] == 1797
    assert found["highest"][0]["file"].split("/")[0] in ("train", "test")


def test_a_folder_called_like_a_data_set_takes_a_slash(
    disk: SimpleNamespace, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(disk.root / "folder", tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    words = ("--model", disk.root / "model", "--out", tmp_path / "out", "--json")
    refused = command("anomalies", "digits", *words)
    assert (refused.code, "write digits/ for the folder" in refused.err) == (2, True)
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in ("digits/", "~/digits"):
        made = command("anomalies", folder, *words)
        assert made.code == 0, made.err
    assert json.loads(made.out)["images"] == 40
    assert str(tmp_path / "digits") in (tmp_path / "out" / "anomalies.html").read_text()


def test_images_that_vanish_before_the_page_is_made_are_left_out_of_it(
    disk: SimpleNamespace,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(disk.root / "folder" / "a", folder)
    count = len(list(folder.iterdir()))

    def written(path: Path, ranked: list[Scored], names: list[str]) -> None:
        write_scores(path, ranked, names)
        (folder / names[ranked[0].index]).unlink()
        for image in ranked[-2:]:
            (folder / names[image.index]).unlink()

    monkeypatch.setattr("mage.cli.anomalies.write_scores", written)
    words = ("anomalies", folder, "--model", disk.root / "model", "--out", tmp_path / "out", "--top", 2, "--json")
    made = command(*words)
    assert made.code == 0, made.err
    assert "cannot be read as an image (no such file)" in caplog.text
    found = json.loads(made.out)
    assert (found["images"], len(found["skipped"])) == (count, 3)
    html = (tmp_path / "out" / "anomalies.html").read_text()
    assert f"2. {found['highest'][1]['file']}" in html
    assert f"1. {found['highest'][0]['file']}" not in html
    assert "Lowest scores" not in html


def test_a_folder_of_one_image_has_no_lowest_scores(disk: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(disk.root / "photo.png", tmp_path / "one" / "photo.png")
    made = command("anomalies", tmp_path / "one", "--model", disk.root / "model", "--out", tmp_path / "out")
    assert made.code == 0, made.err
    assert "Lowest scores" not in (tmp_path / "out" / "anomalies.html").read_text()


def test_a_trained_run_knows_what_is_normal(disk: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    """Without --normal, images that training held out of its data are compared with."""
    model = mage.load(disk.root / "model")
    model.recipe["data"] = {"name": "digits", "validation": {"share": 0.1, "seed": 0}}
    model.save(tmp_path / "trained")
    words = ("anomalies", disk.root / "folder", "--model", tmp_path / "trained", "--scale", "error")
    assert command(*words, "--out", tmp_path / "out").code == 0


def test_a_folder_without_a_readable_image_is_an_error_and_leaves_nothing(
    disk: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "bad").mkdir()
    shutil.copy(disk.root / "text.png", tmp_path / "bad" / "broken.png")
    made = command("anomalies", tmp_path / "bad", "--model", disk.root / "model", "--out", tmp_path / "out")
    assert made.code == 2
    assert "none of the 1 images" in made.err
    assert not (tmp_path / "out").exists()
