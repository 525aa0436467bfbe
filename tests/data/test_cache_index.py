"""index.json of a token cache: written, of an earlier version, damaged and hostile."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mage import atomic
from mage.data.cache_index import INDEX
from mage.data.own_tokens import write_tokens
from mage.data.token_cache import TokenCache

TOKENS = np.arange(24).reshape(4, 6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tokens(
        tmp_path / "cache", TOKENS, num_codes=24, labels=np.array([0, 1, -1, 0]), class_names=("a", "b"), shard_images=3
    ).folder


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / "index.json").read_text())
    del values["checksum"]  # which would notice every change
    edit(values)
    (folder / "index.json").write_text(json.dumps(values))


FIRST_FORMAT = {
    "format": 1,
    "complete": True,
    "key": {"tokenizer": "none", "transform": "none", "data": "tokens train 4", "views": 1, "seed": 0},
    "grid": [1, 6],
    "num_codes": 24,
    "class_names": [],
    "shards": [3, 1],
    "skipped": [],
    "num_images": 4,
}
"""As mage 0.1 wrote it for sequences."""


@pytest.mark.parametrize(("grid", "views"), [((1, 6), 1), ((2, 3), 1), ((1, 3), 2)])
def test_a_cache_of_an_earlier_version_means_what_it_meant(folder: Path, grid: tuple[int, int], views: int) -> None:
    key = {**FIRST_FORMAT["key"], "views": views}  # type: ignore[dict-item]
    (folder / "index.json").write_text(json.dumps({**FIRST_FORMAT, "key": key, "grid": list(grid)}))
    cache = TokenCache(folder)
    assert (cache.grid, cache.key.views, cache.num_codes, len(cache)) == (grid, views, 24, 4)
    rows = np.arange(4)
    for view in range(views):
        expected = TOKENS.reshape(4, views, *grid)[:, view]
        assert np.array_equal(cache.tokens(rows, np.full(4, view)).numpy(), expected)


def test_a_new_cache_says_its_format_so_that_an_older_version_refuses_it(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    assert (index["format"], index["grid"], index["key"]["views"]) == (3, [6], 1)
    assert (index["complete"], index["shards"], index["num_images"]) == (True, [3, 1], 4)


WRONG: dict[str, Any] = {
    "a list": [1],
    "a number": 5,
    "null": None,
    "text": "6",
    "a fraction": 6.5,
    "nothing": [],
    "too many": [6, 1, 1, 1],
    "negative": [-6],
    "huge": [10**30],
    "a mapping": {},
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}: {kind}")
        for name in ("format", "complete", "key", "grid", "num_codes", "class_names", "shards", "skipped", "checksums")
        for kind, value in WRONG.items()
        if not (name in ("class_names", "skipped") and value == [])  # which is fine
    ],
)
def test_a_wrong_value_is_one_sentence(folder: Path, name: str, value: Any) -> None:
    change(folder, lambda index: index.update({name: value}))
    with pytest.raises(ValueError, match=r"delete|damaged|unfinished") as error:
        TokenCache(folder).tokens(np.arange(4), np.zeros(4, int))
    assert type(error.value) is ValueError
    assert len(str(error.value)) < 600
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("tokenizer", "transform", "data", "views", "seed")
        for value in (None, [], {}, 2.5, True, -1, 10**30)
        if not (name == "seed" and type(value) is int)
    ],
)
def test_a_wrong_key_is_one_sentence(folder: Path, name: str, value: Any) -> None:
    change(folder, lambda index: index["key"].update({name: value}))
    with pytest.raises(ValueError, match="is damaged"):
        TokenCache(folder)


@pytest.mark.parametrize("name", ["key", "grid", "num_codes"])
def test_a_missing_value_is_one_sentence(folder: Path, name: str) -> None:
    change(folder, lambda index: index.pop(name))
    with pytest.raises(ValueError, match=f"is damaged .*{name}"):
        TokenCache(folder)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        '"text"',
        "[" * 100_000,
        '{"format": ' + "9" * 5000 + "}",
        '{"format": NaN}',
        "\ud800",
    ],
    ids=["empty", "cut", "null", "list", "number", "text", "deep", "long number", "nan", "no utf-8"],
)
def test_an_invalid_index_is_refused_in_one_sentence(folder: Path, content: str) -> None:
    (folder / "index.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match="is damaged") as error:
        TokenCache(folder)
    assert type(error.value) is ValueError


def test_huge_and_endless_index_files_are_not_read(folder: Path) -> None:
    with open(folder / "index.json", "wb") as file:
        file.truncate(2**40)  # takes no space
    with pytest.raises(ValueError, match="more than 67,108,864 bytes"):
        TokenCache(folder)
    (folder / "index.json").unlink()
    os.mkfifo(folder / "index.json")
    with pytest.raises(ValueError, match=r"index\.json is missing"):
        TokenCache(folder)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda index: index.update(format=4), "this version of mage reads 1 to 3"),
        (lambda index: index.update(format=1), "format 1 has grids of two dimensions, not of 6"),
        (lambda index: index.update(num_codes=20), "holds the token 23 and has 20 codes"),
        (lambda index: index.update(class_names=["a"]), "run from -1 to 1, and it names 1 classes"),
        (lambda index: index.update(shards=[3, 2]), "bytes where"),
        (lambda index: index.update(shards=[3, 1, 1]), "3 shards and checksums of 2"),
        (lambda index: index.update(shards=[0, 0]), "holds no image"),
        (lambda index: index["key"].update(views=2), "bytes where"),
        (lambda index: index.update(more=1), "no setting 'more'"),
    ],
)
def test_values_that_disagree_with_the_files_are_named(
    folder: Path, edit: Callable[[dict[str, Any]], object], words: str
) -> None:
    change(folder, edit)
    with pytest.raises(ValueError, match=words):
        TokenCache(folder).tokens(np.arange(4), np.zeros(4, int))


def test_labels_that_are_cut_are_noticed(folder: Path) -> None:
    path = folder / "labels-00000.i32"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"labels-00000\.i32 has 10 bytes where 12"):
        TokenCache(folder)


def test_a_changed_value_that_could_be_true_is_noticed(folder: Path) -> None:
    text = (folder / "index.json").read_text()
    (folder / "index.json").write_text(text.replace('"num_codes": 24', '"num_codes": 26'))
    with pytest.raises(ValueError, match=r"is damaged .*does not fit its checksum"):
        TokenCache(folder)


@pytest.mark.parametrize("file", [INDEX, "labels-00001.i32"])
def test_an_array_killed_before_its_end_is_written_by_the_same_call(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str
) -> None:
    whole, writing = {path.name: path.read_bytes() for path in folder.iterdir()}, atomic.write_bytes

    def write(path: Path, data: bytes) -> None:
        if path.name == file and file != INDEX:
            raise KeyboardInterrupt
        writing(path, data)
        if path.name == file:
            raise KeyboardInterrupt

    def call() -> None:
        labels = np.array([0, 1, -1, 0])
        write_tokens(tmp_path / "again", TOKENS, num_codes=24, labels=labels, class_names=("a", "b"), shard_images=3)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_bytes", write)
        with pytest.raises(KeyboardInterrupt):
            call()
    call()
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == whole
    call()  # once more is no error
    for other in (TOKENS[:, ::-1], TOKENS[:3]):
        with pytest.raises(ValueError, match=r"holds other tokens|is not empty"):
            write_tokens(tmp_path / "again", other, num_codes=24, class_names=("a", "b"), shard_images=3)
