"""The token cache: content, resuming, keys, batches."""

import json
import os
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mage
from mage import atomic, checksums, images, locks, rng, runs
from mage.data.datasets import Subset, load_dataset
from mage.data.own_tokens import write_tokens
from mage.data.token_batches import token_batches
from mage.data.token_cache import TokenCache, write_cache
from mage.data.transforms import TransformConfig, build_transform
from mage.models import MAGEConfig
from mage.recipes import named
from mage.share import Share
from tests.reference.launches import quiet

TRANSFORM = TransformConfig(size=(8, 8), augmentation="crop_flip", scale=(0.5, 1.0))


@pytest.fixture(scope="module")
def parts() -> SimpleNamespace:
    sizes = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    model = mage.build(sizes, tokenizer=named("smoke").tokenizer, precision="float32")
    return SimpleNamespace(model=model, data=load_dataset("digits", split="test"))


def write(parts: SimpleNamespace, folder: Path, **changes: object) -> TokenCache:
    settings = {"views": 3, "seed": 0, "shard_images": 100} | changes
    write_cache(
        folder, parts.data, parts.model.tokenizer, TRANSFORM, encode=parts.model.encode, **settings  # type: ignore[arg-type]
    )  # fmt: skip
    return TokenCache(folder)


def test_every_view_is_what_encoding_it_alone_gives(parts: SimpleNamespace, tmp_path: Path) -> None:
    cache = write(parts, tmp_path / "cache")
    assert len(cache) == len(parts.data)
    assert cache.labels.tolist() == parts.data.labels.tolist()
    transform = build_transform(TRANSFORM)
    for image, view in ((0, 0), (99, 2), (100, 1), (len(cache) - 1, 2)):
        augmented = transform(parts.data.load(image), rng.generator(0, "view", image, view))
        expected = parts.model.tokenizer.encode(images.to_float(augmented[None]))
        assert torch.equal(cache.tokens(np.array([image]), np.array([view])), expected)


def test_an_interrupted_cache_is_completed_and_equal(parts: SimpleNamespace, tmp_path: Path) -> None:
    whole = write(parts, tmp_path / "whole")

    def stop(done: int) -> None:
        stop.total += done  # type: ignore[attr-defined]
        if stop.total > 150:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    stop.total = 0  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        write(parts, tmp_path / "cut", on_images=stop)
    with pytest.raises(ValueError, match="unfinished"):
        TokenCache(tmp_path / "cut")
    cut = write(parts, tmp_path / "cut")
    every = np.arange(len(whole))
    for view in range(3):
        assert torch.equal(whole.tokens(every, every * 0 + view), cut.tokens(every, every * 0 + view))


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_shard_that_was_begun_is_not_encoded_again(
    parts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Of a shard of the usual size: after 80 of 100 images the last 20 are left."""
    some = replace_data(parts, Subset(parts.data, range(100)))
    settings = {"shard_images": 16384, "batch_size": 30, "views": 3}
    write(some, tmp_path / "whole", **settings)
    whole, done = content(tmp_path / "whole"), list[int]()
    monkeypatch.setattr("mage.data.shard_encoding.SECONDS", seconds)

    def stop(count: int) -> None:
        done.append(count)
        if sum(done) >= 80:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(some, tmp_path / "cut", **settings, on_images=stop)
    assert (tmp_path / "cut" / "begun.npz").is_file()
    encoded: list[int] = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixels) // 3)
        return parts.model.encode(pixels)

    told: list[int] = []
    model = SimpleNamespace(tokenizer=parts.model.tokenizer, encode=encode)
    write(SimpleNamespace(model=model, data=some.data), tmp_path / "cut", **settings, on_images=told.append)
    assert (encoded, told) == ([10, 10], [80, 10, 10])
    assert content(tmp_path / "cut") == whole


def test_a_begun_shard_that_was_damaged_is_encoded_from_its_beginning(parts: SimpleNamespace, tmp_path: Path) -> None:
    write(parts, tmp_path / "whole")

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(parts, tmp_path / "cut", on_images=stop)
    begun = tmp_path / "cut" / "begun.npz"
    data = bytearray(begun.read_bytes())
    data[len(data) // 2] ^= 1
    begun.write_bytes(data)
    write(parts, tmp_path / "cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_many_shards_keep_no_files_open(parts: SimpleNamespace, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    tokens = np.arange(120).reshape(60, 2)
    write_tokens(tmp_path / "cache", tokens, num_codes=120, shard_images=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = os.dup(0)
    os.close(open_now)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 20, hard))
    try:
        cache = TokenCache(tmp_path / "cache")
        read = cache.tokens(np.arange(60), np.zeros(60, dtype=np.int64))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert np.array_equal(read.numpy(), tokens)


def test_a_cache_refuses_another_tokenizer_transform_or_seed(parts: SimpleNamespace, tmp_path: Path) -> None:
    cache = write(parts, tmp_path / "cache")
    cache.check_tokenizer(parts.model.tokenizer)
    other = mage.build(parts.model.transformer.config, tokenizer=named("smoke").tokenizer, seed=1)
    with pytest.raises(ValueError, match="was made by tokenizer") as caught:
        cache.check_tokenizer(other.tokenizer)
    assert parts.model.tokenizer.fingerprint() in str(caught.value)
    assert other.tokenizer.fingerprint() in str(caught.value)
    with pytest.raises(ValueError, match="with seed 0, not 1"):
        write(parts, tmp_path / "cache", seed=1)
    with pytest.raises(ValueError, match="with views 3, not 2"):
        write(parts, tmp_path / "cache", views=2)


def test_corrupt_files_are_skipped_counted_and_named(parts: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(6):
        images.save_png(tmp_path / "data" / "train" / "a" / f"{number}.png", torch.rand(1, 8, 8))
    (tmp_path / "data" / "train" / "a" / "2.png").write_bytes(b"broken")
    data = load_dataset(str(tmp_path / "data"), channels=1)
    cache = write(replace_data(parts, data), tmp_path / "cache", shard_images=2)
    assert len(cache) == 5
    assert [Path(path).name for path in cache.index.skipped] == ["2.png"]
    assert cache.tokens(np.arange(5), np.zeros(5, dtype=np.int64)).shape == (5, 4, 4)


def test_tokens_of_files_that_have_changed_since_are_not_taken_for_theirs(
    parts: SimpleNamespace, tmp_path: Path
) -> None:
    for number in range(20):
        pixels = torch.rand(1, 12, 12, generator=rng.generator(number, "photo"))
        images.save_png(tmp_path / "photos" / "ab"[number % 2] / f"{number:02}.png", pixels)
    given = SimpleNamespace(model=parts.model, data=Subset(load_dataset(tmp_path / "photos", split="all"), range(18)))
    given.data.dataset.channels = 1
    whole = write(given, tmp_path / "cache")
    assert len(write(given, tmp_path / "cache")) == len(whole) == 18
    images.save_png(tmp_path / "photos" / "a" / "04.png", torch.zeros(1, 30, 20))
    with pytest.raises(ValueError, match=r"image files that have changed since then, under the same names"):
        write(given, tmp_path / "cache")
    assert len(TokenCache(tmp_path / "cache")) == 18, "what there is can be opened without the images"


def test_worker_processes_change_nothing(parts: SimpleNamespace, tmp_path: Path) -> None:
    for name, workers in (("one", 0), ("many", 2)):
        write(parts, tmp_path / name, workers=workers)
    one, many = ((tmp_path / name / "tokens-00000.u16").read_bytes() for name in ("one", "many"))
    assert one == many


def replace_data(parts: SimpleNamespace, data: object) -> SimpleNamespace:
    return SimpleNamespace(model=parts.model, data=data)


def test_tokenizing_reads_no_file_of_a_cache_twice(
    parts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache of ImageNet has gigabytes."""
    read: list[str] = []
    of_file = checksums.of_file
    monkeypatch.setattr(checksums, "of_file", lambda path: (read.append(path.name), of_file(path))[1])
    for expected in ([], ["labels-00000.i32", "tokens-00000.u16"]):
        assert len(runs.tokenize(named("smoke"), quiet(tmp_path / "cache"), parts.model)) > 1000
        assert sorted(read) == expected


def test_damage_is_noticed(parts: SimpleNamespace, tmp_path: Path) -> None:
    write(parts, tmp_path / "cache")
    shard = tmp_path / "cache" / "tokens-00001.u16"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(ValueError, match="bytes where"):
        TokenCache(tmp_path / "cache")
    (tmp_path / "cache" / "index.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        TokenCache(tmp_path / "cache")
    with pytest.raises(ValueError, match="not a token cache"):
        TokenCache(tmp_path)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("file", ["tokens-00001.u16", "labels-00002.i32"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_shard_is_noticed_and_encoded_again(
    parts: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    write(parts, tmp_path / "cache")
    whole, shard = content(tmp_path / "cache"), tmp_path / "cache" / file
    data = bytearray(shard.read_bytes())
    data[100] ^= 2  # still a token or a label that could be
    shard.write_bytes(data if damage == "flip" else data[:50])
    if damage == "remove":
        shard.unlink()
    with pytest.raises(ValueError, match=rf"{file} .*was damaged; the same `mage tokenize` makes that part again"):
        TokenCache(tmp_path / "cache")
    write(parts, tmp_path / "cache")
    assert f"{file} was damaged: its images are encoded again" in caplog.text
    assert content(tmp_path / "cache") == whole


def test_a_repaired_shard_may_have_other_unreadable_images(parts: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(9):
        images.save_png(tmp_path / "data" / f"{number}.png", torch.rand(1, 8, 8, generator=rng.generator(number)))
    names = [tmp_path / "data" / f"{number}.png" for number in range(9)]
    saved = [name.read_bytes() for name in names]
    for number in (0, 3, 7):
        names[number].write_bytes(bytes(len(saved[number])))  # of the same size
    given = replace_data(parts, load_dataset(str(tmp_path / "data"), split="all", channels=1))
    write(given, tmp_path / "cache", shard_images=3)
    for number in (3, 4, 5):
        names[number].write_bytes(saved[3] if number == 3 else bytes(len(saved[number])))
    (tmp_path / "cache" / "labels-00001.i32").write_bytes(b"")
    cache = write(given, tmp_path / "cache", shard_images=3)
    assert cache.index.shards == (2, 1, 2)
    assert [Path(path).name for path in cache.index.skipped] == ["0.png", "4.png", "5.png", "7.png"]


def test_a_cache_is_made_where_a_killed_call_left_the_traces_of_its_first_file(
    parts: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f".index.json.{atomic.HOST}-{2**22 + 1}-0.tmp").write_text("{")
    (tmp_path / "cache" / ".lock").write_text("{")
    write(parts, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]


def test_a_cache_that_the_version_before_began_is_continued(parts: SimpleNamespace, tmp_path: Path) -> None:
    write(parts, tmp_path / "cache")
    whole, path = content(tmp_path / "cache"), tmp_path / "cache" / "index.json"
    index = json.loads(path.read_text()) | {"format": 2, "complete": False}
    index["shards"] = index["shards"][:1]
    del index["checksum"], index["checksums"]
    path.write_text(json.dumps(index))
    write(parts, tmp_path / "cache")
    assert content(tmp_path / "cache") == whole


def test_two_processes_do_not_write_one_cache(parts: SimpleNamespace, tmp_path: Path) -> None:
    read, written = os.pipe()
    child = os.fork()
    if child == 0:
        with locks.run_lock(tmp_path / "cache"):
            os.write(written, b"held")
            time.sleep(60)
            os._exit(0)
    try:
        os.read(read, 4)
        with pytest.raises(ValueError, match=rf"cache is in use by process {child} on "):
            write(parts, tmp_path / "cache")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    write(parts, tmp_path / "cache")


def test_batches_are_a_function_of_their_number_and_cover_an_epoch(parts: SimpleNamespace, tmp_path: Path) -> None:
    cache = write(parts, tmp_path / "cache")
    from_start = list(islice(token_batches(cache, share=Share(50), seed=0), 8))
    from_fifth = list(islice(token_batches(cache, share=Share(50), seed=0, start=5), 3))
    for whole, part in zip(from_start[5:], from_fifth, strict=True):
        assert torch.equal(whole["tokens"], part["tokens"])
    halves = [list(islice(token_batches(cache, share=Share(50, 1, rank, 2), seed=0), 2)) for rank in (0, 1)]
    for number in range(2):
        joined = torch.cat([halves[rank][number]["tokens"] for rank in (0, 1)])
        assert torch.equal(joined, from_start[number]["tokens"])
    with pytest.raises(ValueError, match=r"does not fit the 297 images of .*cache; choose a batch size from 1 to 297"):
        next(token_batches(cache, share=Share(1000), seed=0))


def test_tokens_take_two_bytes_each(parts: SimpleNamespace, tmp_path: Path) -> None:
    cache = write(parts, tmp_path / "cache")
    size = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.u16"))
    assert size == 2 * len(cache) * 3 * 16
    index = json.loads((tmp_path / "cache" / "index.json").read_text())
    assert index["key"]["transform"].startswith("crop_flip 8x8")
    assert replace(cache.key, views=1).views == 1
