"""Shards and token caches in an object store: S3 as moto serves it on this machine."""

import errno
import importlib.util
import json
import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mage import images
from mage.data import storage
from mage.data.datasets import load_dataset
from mage.data.loaders import TrainLoader, evaluation_batches
from mage.data.named_images import named_images
from mage.data.own_tokens import write_tokens
from mage.data.shard_copies import Copies
from mage.data.shard_index import BESIDE
from mage.data.shard_writer import write_shard
from mage.data.storage import BrokenFile, Stored, look_at
from mage.data.stored_tokens import open_cache
from mage.data.tar_images import ShardConfig, TarDataset
from mage.data.transforms import TransformConfig, build_transform
from mage.share import Share

STUDIES = Path(__file__).resolve().parents[2] / "studies"
PLAIN = build_transform(TransformConfig(size=(4, 4)))
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of boto3's and aiohttp's own


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ValueError, match=r'pip install "mage-vision\[remote\]"'):
        load_dataset("s3://bucket/x.tar")
    with pytest.raises(ValueError, match='takes the package gcsfs: pip install "gcsfs"'):
        load_dataset("gs://bucket/x.tar")


@pytest.fixture(scope="module")
def helper() -> Any:
    """studies/object_store.py."""
    for package in ("moto", "flask", "s3fs", "boto3"):
        pytest.importorskip(package, reason="the object store of these tests takes moto[s3,server] and s3fs")
    found = importlib.util.spec_from_file_location("object_store", STUDIES / "object_store.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def running(helper: Any) -> Iterator[dict[str, str]]:
    with helper.object_store() as environment:
        yield environment


@pytest.fixture
def store(helper: Any, running: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Uploads a folder into a bucket of this test; yields (upload, bucket, client)."""
    for name, value in running.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MAGE_DATA", str(tmp_path / "kept"))
    monkeypatch.setattr(storage, "WAITS", (0.0, 0.0, 0.0))
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    yield helper
    s3fs.S3FileSystem.clear_instance_cache()


def shards(folder: Path, count: int = 4) -> Path:
    """Shards of ten one-coloured images each, whose grey is their number."""
    for number in range(count):
        files = []
        for grey in range(number * 10, number * 10 + 10):
            files.append((f"{grey:04d}.png", images.png_bytes(torch.full((3, 4, 4), grey / 255))))
            files.append((f"{grey:04d}.cls", str(grey % 3).encode()))
        write_shard(folder / f"s-{number}.tar", files)
    return folder


def greys(dataset: Any) -> list[int]:
    return [int(dataset.load(index)[0, 0, 0]) for index in range(len(dataset))]


def test_shards_in_a_store_are_those_on_the_disk(store: Any, tmp_path: Path) -> None:
    folder = shards(tmp_path / "local")
    store.upload(folder, "same")
    for name in ("s3://same/s-{0..3}.tar", "s3://same/s-*.tar", "s3://same", "s3://same/"):
        for split in ("all", "train", "test"):
            here, there = load_dataset(folder, split=split), load_dataset(name, split=split)
            assert isinstance(there, TarDataset)
            assert (there.content, there.names()) == (here.content, here.names()), "so that runs and caches move"
            assert there.labels.tolist() == here.labels.tolist()
    assert greys(there) == greys(here)
    rows = named_images("s3://same/s-{0..3}.tar")
    assert (rows.file(3), rows.label(3)) == ("s-0.tar/0003.png", "0")
    assert rows.version(3) == load_dataset("s3://same/s-0.tar", split="all").version(3)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_reads_the_same_from_a_store_by_any_number_of_workers(
    store: Any, tmp_path: Path, workers: int
) -> None:
    store.upload(shards(tmp_path / "local"), f"train{workers}")
    config = ShardConfig(window=2)
    seen = []
    for name, at_work in ((str(tmp_path / "local"), 0), (f"s3://train{workers}/s-{{0..3}}.tar", workers)):
        dataset = load_dataset(name, split="all", shards=config)
        loader = iter(TrainLoader(dataset, PLAIN, share=Share(8), seed=0, start=2, num_workers=at_work))
        seen.append([next(loader)["images"][:, 0, 0, 0].tolist() for _ in range(6)])
    assert seen[0] == seen[1]


def test_foreign_shards_get_an_index_once_and_a_replaced_shard_a_new_one(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(tmp_path / "local", count=1)
    (folder / f"s-0.tar{BESIDE}").unlink()
    store.upload(folder, "foreign")
    assert greys(load_dataset("s3://foreign/s-0.tar", split="all")) == list(range(10))
    with monkeypatch.context() as patch:
        patch.setattr("mage.data.shard_index.make_index", lambda *_: pytest.fail("the index was kept"))
        assert len(load_dataset("s3://foreign/s-0.tar", split="all")) == 10
    write_shard(tmp_path / "new" / "s-0.tar", [("0.png", images.png_bytes(torch.ones(3, 4, 4)))])
    store.client().put_object(Bucket="foreign", Key="s-0.tar", Body=(tmp_path / "new" / "s-0.tar").read_bytes())
    assert greys(load_dataset("s3://foreign/s-0.tar", split="all")) == [255]


def test_a_shard_is_copied_once_its_requests_cost_as_much(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upload(shards(tmp_path / "local", count=1), "copied")
    asked: list[tuple[int, int]] = []
    read = storage.read

    def counted(stored: Stored, start: int, count: int) -> bytes:
        asked.append((start, count))
        return read(stored, start, count)

    monkeypatch.setattr("mage.data.tar_images.read", counted)
    monkeypatch.setattr("mage.data.shard_copies.read", counted)
    size = (tmp_path / "local" / "s-0.tar").stat().st_size
    monkeypatch.setattr("mage.data.shard_copies.REQUEST_BYTES", -(-size // 3))
    dataset = load_dataset("s3://copied/s-0.tar", split="all")
    assert greys(dataset) == list(range(10))
    assert [start for start, count in asked] == [dataset._places[0, 0], dataset._places[1, 0], 0]
    assert asked[-1] == (0, size), "the third request copies all of it"
    asked.clear()
    assert greys(load_dataset("s3://copied/s-0.tar", split="all")) == list(range(10))
    assert not asked, "the copy serves later runs, too"
    without = load_dataset("s3://copied/s-0.tar", split="all", shards=ShardConfig(copies_gigabytes=0))
    (copy,) = (tmp_path / "kept" / "shards").glob("*.tar")
    copy.unlink()
    assert greys(without) == list(range(10))
    assert len(asked) == 10
    assert not list((tmp_path / "kept" / "shards").glob("*.tar"))


def test_copies_make_room_for_each_other_and_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    copies = Copies(tmp_path / "copies", 2500)
    stored = []
    for number in range(3):
        path = tmp_path / f"{number}"
        path.write_bytes(bytes([number]) * 1000)
        stored.append(look_at(str(path)))
    left = copies.path(stored[0]).with_name(f".{copies.path(stored[0]).name}.99.tmp")
    left.parent.mkdir()
    left.write_bytes(b"half")
    for number in (0, 1):
        assert copies.make(stored[number]).read_bytes() == bytes([number]) * 1000
    assert not left.exists()
    copies.used(stored[0])
    copies.make(stored[2])
    assert [copies.path(each).exists() for each in stored] == [True, False, True], "the one used longest ago goes"
    assert not copies.worth_it(stored[0], 0)
    assert copies.worth_it(stored[0], 1)
    assert not Copies(tmp_path, 999).worth_it(stored[0], 10**9), "it would not fit"


def test_threads_that_copy_one_shard_wait_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards(tmp_path / "local", count=1)
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.pipe("/threads/s-0.tar", (tmp_path / "local" / "s-0.tar").read_bytes())
    monkeypatch.setenv("MAGE_DATA", str(tmp_path / "kept"))
    monkeypatch.setattr("mage.data.shard_copies.REQUEST_BYTES", 2**30)
    copied: list[int] = []

    def slow(stored: Stored, start: int, count: int) -> bytes:
        copied.append(start)
        time.sleep(0.05)
        return storage.read(stored, start, count)

    monkeypatch.setattr("mage.data.shard_copies.read", slow)
    dataset = load_dataset("memory://threads/s-0.tar", split="all")
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(dataset.load, range(10)))
    assert [int(image[0, 0, 0]) for image in loaded] == list(range(10))
    assert copied == [0]


def test_a_full_disk_says_where_room_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"12345")

    def full(stored: Stored, start: int, count: int) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mage.data.shard_copies.read", full)
    with pytest.raises(OSError, match=r"is full: set MAGE_DATA .* --set data\.shards\.copies_gigabytes"):
        Copies(tmp_path / "copies", 10**6).make(look_at(str(tmp_path / "file")))
    assert not list((tmp_path / "copies").glob("*.tar"))


def test_a_missing_shard_in_a_store_is_tried_again_named_and_skipped_if_asked(
    store: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.upload(shards(tmp_path / "local", count=2), "gone")
    with pytest.raises(BrokenFile, match=r"^s3://gone/s-2\.tar is missing, tried 4 times$"):
        load_dataset("s3://gone/s-{0..2}.tar")
    dataset = load_dataset("s3://gone/s-{0..2}.tar", split="all", shards=ShardConfig(skip_broken=True))
    assert (len(dataset), dataset.skipped) == (20, ["s3://gone/s-2.tar"])
    store.client().delete_object(Bucket="gone", Key="s-1.tar")
    with caplog.at_level(logging.WARNING):
        batches = list(evaluation_batches(dataset, PLAIN, batch_size=5))
    assert sum(len(batch["index"]) for batch in batches) == 10
    assert dataset.skipped[1:] == ["s3://gone/s-1.tar"]


def test_a_token_cache_in_a_store_is_copied_once_and_continued_if_it_was_cut_short(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, (30, 12))
    write_tokens(tmp_path / "cache", tokens, num_codes=50, shard_images=10)
    store.upload(tmp_path / "cache", "tokens")
    assert open_cache(tmp_path / "none") is None
    assert open_cache("s3://tokens/nothing") is None
    assert open_cache("s3://tokens/x-{0..3}.tar") is None
    copied: list[str] = []
    copy_file = sys.modules["mage.data.stored_tokens"].copy_file

    def stopping(stored: Stored, path: Path) -> None:
        if len(copied) == 3:
            raise KeyboardInterrupt
        copied.append(path.name)
        copy_file(stored, path)

    with monkeypatch.context() as patch:
        patch.setattr("mage.data.stored_tokens.copy_file", stopping)
        with pytest.raises(KeyboardInterrupt):
            open_cache("s3://tokens")
    copied.append("after")
    with monkeypatch.context() as patch:
        patch.setattr("mage.data.stored_tokens.copy_file", lambda *words: (copied.append(""), copy_file(*words)))
        cache = open_cache("s3://tokens/")
        assert len(copied) == 7, "three files of six were there"
        assert cache is not None
        assert np.array_equal(cache.tokens(np.arange(30), np.zeros(30, int)).numpy(), tokens)
        assert open_cache("s3://tokens") is not None
        assert len(copied) == 7
    store.client().put_object(Bucket="tokens", Key="bad/index.json", Body=json.dumps({"format": 99}).encode())
    with pytest.raises(ValueError, match=r"s3://tokens/bad/index\.json is damaged"):
        open_cache("s3://tokens/bad")


def test_a_damaged_copy_of_a_token_cache_is_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setenv("MAGE_DATA", str(tmp_path / "kept"))
    tokens = np.random.default_rng(0).integers(0, 50, (30, 12))
    write_tokens(tmp_path / "cache", tokens, num_codes=50, shard_images=10)
    for path in (tmp_path / "cache").iterdir():
        memory.pipe(f"/tokens/{path.name}", path.read_bytes())
    assert open_cache("memory://tokens") is not None
    (copy,) = (path for path in (tmp_path / "kept" / "tokens").iterdir() if path.is_dir())
    for name, damage in (("tokens-00001.u16", b"\1" * 240), ("labels-00002.i32", b"short")):
        (copy / name).write_bytes(damage)
    copied: list[str] = []
    copy_file = sys.modules["mage.data.stored_tokens"].copy_file

    def noted(stored: Stored, path: Path) -> None:
        copied.append(path.name)
        copy_file(stored, path)

    monkeypatch.setattr("mage.data.stored_tokens.copy_file", noted)
    cache = open_cache("memory://tokens")
    assert cache is not None
    assert np.array_equal(cache.tokens(np.arange(30), np.zeros(30, int)).numpy(), tokens)
    assert sorted(copied) == ["labels-00002.i32", "tokens-00001.u16"]
    memory.pipe("/tokens/tokens-00001.u16", b"\2" * 240)
    (copy / "tokens-00001.u16").write_bytes(b"\1" * 240)
    with pytest.raises(ValueError, match=r"memory://tokens is damaged itself, as its copy shows: .*tokens-00001\.u16"):
        open_cache("memory://tokens")
    values = json.loads((tmp_path / "cache" / "index.json").read_text()) | {"complete": False}
    del values["checksum"]
    memory.pipe("/tokens/index.json", json.dumps(values).encode())
    with pytest.raises(ValueError, match=r"^the token cache .* is unfinished"):
        open_cache("memory://tokens")
