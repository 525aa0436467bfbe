"""`mage shards`, and commands that read what it wrote."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mage.data.storage import WAITS
from mage.data.token_cache import TokenCache

Command = Callable[..., SimpleNamespace]


@pytest.fixture
def written(disk: SimpleNamespace, command: Command, tmp_path: Path) -> Path:
    """Shards of the folder with two classes and 40 images."""
    made = command("shards", disk.root / "folder", "--out", tmp_path / "s", "--size", "20kB", "--json")
    assert made.code == 0, made.err
    result = json.loads(made.out)
    assert result["images"] == {"all": 40}
    assert result["shards"]["all"] == len(list((tmp_path / "s").glob("*.tar"))) > 2
    return tmp_path / "s"


def test_a_broken_file_is_left_out_and_told(disk: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    shutil.copytree(disk.root / "folder", tmp_path / "photos")
    shutil.copy(disk.root / "text.png", tmp_path / "photos" / "a" / "broken.png")
    told = command("shards", tmp_path / "photos", "--out", tmp_path / "s")
    assert told.code == 0, told.err
    assert "40 images in 1 shards; 1 unreadable files skipped" in told.out
    assert command("shards", tmp_path / "photos", "--out", tmp_path / "s").out == told.out


def test_tables_name_shard_and_image_and_broken_shards_are_skipped_if_asked(
    disk: SimpleNamespace, command: Command, written: Path, tmp_path: Path
) -> None:
    pattern = written / f"s-{{000000..{len(list(written.glob('*.tar'))) - 1:06d}}}.tar"
    words = ("embed", pattern, "--model", disk.root / "model", "--precision", "float32")
    assert command(*words, "--out", tmp_path / "a.csv").code == 0
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert rows[0]["file"].startswith("s-000000.tar/0000")
    assert {row["label"] for row in rows} == {"a", "b"}
    again = json.loads(command(*words, "--out", tmp_path / "a.csv", "--json").out)
    assert (again["images"], again["computed"]) == (40, 0)
    (written / "s-000001.tar").unlink()
    assert WAITS == (0.5, 2.0, 8.0), "as the page on data at scale says"
    refused = command(*words, "--out", tmp_path / "b.csv")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "s-000001.tar is missing" in refused.err
    told = command(*words, "--out", tmp_path / "b.csv", "--skip-broken")
    assert told.code == 0, told.err
    assert "1 unreadable files skipped" in told.out
    assert "s-000001.tar" in told.out


def test_models_are_trained_probed_and_asked_on_shards(
    disk: SimpleNamespace, command: Command, written: Path, tmp_path: Path
) -> None:
    words = ("--recipe", "smoke", "--tokenizer", disk.root / "tokenizer", "--data", written, "--precision", "float32")
    short = ("--set", "pretraining.steps=4", "--set", "pretraining.batch_size=8", "--set", "data.shards.window=2")
    made = command("pretrain", *words, *short, "--online", "--out", tmp_path / "online", "--json")
    assert made.code == 0, made.err
    made = command("tokenize", *words, "--out", tmp_path / "tokens", "--json")
    assert made.code == 0, made.err
    assert len(TokenCache(tmp_path / "tokens")) == json.loads(made.out)["images"] == 34
    assert command("knn", "--model", disk.root / "model", "--data", written).code == 0
    made = command("anomalies", written, "--model", disk.root / "model", "--out", tmp_path / "found", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["highest"][0]["file"].startswith("s-0000")
