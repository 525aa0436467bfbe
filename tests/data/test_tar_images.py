"""Images in tar shards: labels, names, splits, broken shards, and what may be in a shard."""

import io
import json
import logging
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mage import images, rng
from mage.data import storage
from mage.data.datasets import CorruptImage, ImageDataset, Subset, load_dataset
from mage.data.epoch_order import Locality, epoch_order
from mage.data.loaders import TrainLoader, evaluation_batches
from mage.data.named_images import named_images
from mage.data.shard_index import BESIDE, index_of, make_index, split_name
from mage.data.shard_names import expand
from mage.data.shard_writer import write_shard
from mage.data.storage import BrokenFile, Stored, look_at
from mage.data.tar_images import ShardConfig, TarDataset, open_shards
from mage.data.transforms import TransformConfig, build_transform
from mage.share import Share

PICTURES = torch.randint(0, 256, (5, 3, 6, 7), generator=rng.generator(0), dtype=torch.uint8)
PLAIN = build_transform(TransformConfig(size=(4, 4)))
SKIPPING = ShardConfig(skip_broken=True)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WAITS", (0.0, 0.0, 0.0))


def png(index: int) -> bytes:
    return images.png_bytes(images.to_float(PICTURES[index]))


def numbered(path: Path, numbers: Sequence[int], labels: Callable[[int], str] | None = None) -> Path:
    """A shard of one-coloured images whose grey is their number."""
    files = []
    for number in numbers:
        files.append((f"{number:04d}.png", images.png_bytes(torch.full((3, 4, 4), number / 255))))
        if labels is not None:
            files.append((f"{number:04d}.cls", labels(number).encode()))
    write_shard(path, files)
    return path


def greys(dataset: ImageDataset) -> list[int]:
    return [int(dataset.load(index)[0, 0, 0]) for index in range(len(dataset))]


def tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar as other programs write it, without an index."""
    with tarfile.open(path, "w", format=kind) as shard:
        for entry, data in entries:
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))
    return path


def named(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def test_images_come_back_in_order_from_all_shards(tmp_path: Path) -> None:
    write_shard(tmp_path / "b.tar", [("3.png", png(3)), ("4.png", png(4))])
    write_shard(tmp_path / "a.tar", [("0.png", png(0)), ("0.cls", b"cat"), ("1.png", png(1)), ("2.png", png(2))])
    dataset = open_shards(tmp_path)
    assert isinstance(dataset, ImageDataset)
    assert len(dataset) == 5
    for index in range(5):
        assert torch.equal(dataset.load(index), PICTURES[index])
    assert dataset.names() == ["a.tar/0.png", "a.tar/1.png", "a.tar/2.png", "b.tar/3.png", "b.tar/4.png"]
    assert dataset.labels is None, "not all of them have one"
    assert open_shards(tmp_path, channels=1).load(1).shape == (1, 6, 7)
    with pytest.raises(ValueError, match=r"1 \(grey\) or 3 \(RGB\) channels, not 4"):
        open_shards(tmp_path, channels=4)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, [("0.png", png(0))])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_other_programs_are_indexed_when_first_opened(
    tmp_path: Path, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with folders, long names, hidden files, and members that are no images."""
    monkeypatch.setenv("MAGE_DATA", str(tmp_path / "kept"))
    long = "n" * 80 + "/" + "m" * 70
    folder = named("./birds/")
    folder.type = tarfile.DIRTYPE
    files = [("./birds/a.JPG", png(0)), ("birds/a.txt", b"a bird"), (f"{long}.png", png(1)), ("birds/._a.png", b"mac")]
    files += [("birds/a.seg.png", png(2)), ("birds/é.webp", png(3))]
    path = tar(tmp_path / "x.tar", (folder, b""), *((named(name), data) for name, data in files), kind=kind)
    dataset = open_shards(path)
    assert dataset.names() == ["x.tar/birds/a.JPG", f"x.tar/{long}.png", "x.tar/birds/é.webp"]
    for index, picture in enumerate((0, 1, 3)):
        assert torch.equal(dataset.load(index), PICTURES[picture])
    monkeypatch.setattr("mage.data.shard_index.make_index", lambda *_: pytest.fail("the index was kept"))
    assert open_shards(path).content == dataset.content


def test_an_index_of_another_shard_or_with_places_outside_is_made_anew(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.tar", [1, 2, 3])
    beside = Path(f"{path}{BESIDE}")
    right = json.loads(beside.read_text())
    for change in (
        {"size": 5},
        {"starts": [512, 10**9, 0]},
        {"sizes": [-1, 5, 5]},
        {"starts": [512.5, 5, 5]},
        {"names": [1, 2, 3]},
        {"labels": [None]},
        {"format": 9},
    ):
        beside.write_text(json.dumps(right | change))
        index = index_of(look_at(str(path)), tmp_path / "kept")
        assert index.places.T.tolist() == [right["starts"], right["sizes"]], change
    beside.write_text("[" * 100_000)
    assert len(index_of(look_at(str(path)), tmp_path / "kept").names) == 3


def test_an_index_that_is_older_than_its_shard_is_made_anew(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.tar", [1, 2], labels=lambda number: "ab"[number - 1])
    stale = Path(f"{path}{BESIDE}").read_text()
    numbered(path, [1, 2], labels=lambda number: "ba"[number - 1])
    Path(f"{path}{BESIDE}").write_text(stale)
    os.utime(f"{path}{BESIDE}", (1, 1))
    assert index_of(look_at(str(path)), tmp_path / "kept").labels == ("b", "a")


def test_an_index_that_cannot_be_kept_is_used_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = numbered(tmp_path / "a.tar", [1, 2])
    Path(f"{path}{BESIDE}").unlink()
    (tmp_path / "kept").write_text("a file")
    assert len(index_of(look_at(str(path)), tmp_path / "kept").names) == 2
    assert "is made again next time" in caplog.text


def test_labels_are_numbers_names_or_under_a_key_of_json(tmp_path: Path) -> None:
    numbered(tmp_path / "n.tar", [10, 9, 2], labels=lambda number: str(number))
    dataset = open_shards(tmp_path / "n.tar")
    assert dataset.labels.tolist() == [10, 9, 2], "a number is the class's number, as in WebDataset"
    assert dataset.class_names == tuple(map(str, range(11)))
    numbered(tmp_path / "w.tar", [1, 2, 3], labels=lambda number: "cat" if number == 2 else "ant")
    assert open_shards(tmp_path / "w.tar").class_names == ("ant", "cat")
    assert open_shards(tmp_path / "w.tar").labels.tolist() == [0, 1, 0]
    facts = [b'{"label": "dog"}', b'{"cls": "cat", "caption": "x"}']
    entries = [(f"{n}.{suffix}", data) for n in (0, 1) for suffix, data in (("png", png(n)), ("json", facts[n]))]
    write_shard(tmp_path / "j.tar", entries)
    assert open_shards(tmp_path / "j.tar").labels.tolist() == [1, 0]
    write_shard(
        tmp_path / "k.tar", [("0.png", png(0)), ("0.json", b"[" * 99_999), ("1.png", png(1)), ("1.json", b"{}")]
    )
    assert open_shards(tmp_path / "k.tar").labels is None


def test_names_are_cut_at_the_first_dot_as_in_webdataset() -> None:
    assert split_name("a.b/0001.jpg") == ("a.b/0001", "jpg")
    assert split_name("0001.seg.PNG") == ("0001", "seg.png")
    assert split_name("._0001.png")[1] == ""


def test_braces_patterns_folders_and_files_name_shards(tmp_path: Path) -> None:
    for number in range(3):
        numbered(tmp_path / "[x]" / f"s-{number:02d}.tar", [number])
    folder = tmp_path / "[x]"
    names = (folder / "s-{00..02}.tar", tmp_path / "?x?" / "s-*.tar", folder, folder / "s-0{0,1,2}.tar")
    assert [greys(load_dataset(name, split="all")) for name in names] == [[0, 1, 2]] * 4
    assert greys(load_dataset(folder / "s-01.tar", split="all")) == [1]
    with pytest.raises(BrokenFile, match=r"s-03\.tar is missing"):
        load_dataset(folder / "s-{01..03}.tar")
    assert expand("a{08..11}b{x,y}") == [f"a{n}b{letter}" for n in ("08", "09", "10", "11") for letter in "xy"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s-{0..}.tar", "write {000000..000099}"),
        ("s-{3..1}.tar", "smaller number first"),
        ("s-{0..999999999999}.tar", "at most 100,000"),
        ("s-{0..999}-{0..999}.tar", "more than 100,000 shards"),
        ("s-{0,0}.tar", "twice"),
        ("s-*.tar", "no file matches"),
        ("s.tar.gz", "is compressed"),
        ("none.tar", r"none\.tar is missing"),
        ("pipe://cat x.tar", "protocol 'pipe'; it may be one of s3,"),
        ("simplecache::s3://bucket/x.tar", "protocol 'simplecache::s3'"),
    ],
)
def test_wrong_names_of_shards_are_one_sentence(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(name if "://" in name else tmp_path / name)


def test_a_folder_of_images_with_a_tar_beside_them_is_a_folder_of_images(tmp_path: Path) -> None:
    numbered(tmp_path / "backup.tar", [1])
    images.save_png(tmp_path / "a.png", torch.zeros(3, 4, 4))
    assert not isinstance(load_dataset(tmp_path, split="all"), TarDataset)


def test_a_tenth_is_held_out_wherever_the_shards_lie(tmp_path: Path) -> None:
    for home in ("one", "two"):
        for number in range(4):
            numbered(tmp_path / home / f"s-{number}.tar", range(number * 10, number * 10 + 10), labels=str)
    train, test = (load_dataset(tmp_path / "one", split=split) for split in ("train", "test"))
    assert sorted(greys(train) + greys(test)) == list(range(40))
    assert (len(train), len(test)) == (36, 4)
    assert train.class_names == test.class_names, "a class has one number in both"
    assert load_dataset(tmp_path / "two" / "s-*.tar").content == train.content


def test_train_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    numbered(tmp_path / "train" / "s.tar", [1, 2], labels=lambda number: "ab"[number - 1])
    numbered(tmp_path / "val" / "s.tar", [3], labels=lambda number: "b")
    assert greys(load_dataset(tmp_path)) == [1, 2]
    test = load_dataset(tmp_path, split="test")
    assert (greys(test), test.class_names, test.labels.tolist()) == ([3], ("a", "b"), [1])
    assert greys(load_dataset(tmp_path, split="all")) == [1, 2, 3]
    assert open_shards(tmp_path, split="all").names()[-1] == "val/s.tar/0003.png"


def test_a_test_folder_without_labels_takes_none_from_training(tmp_path: Path) -> None:
    numbered(tmp_path / "train" / "s.tar", [1, 2], labels=lambda number: "ab"[number - 1])
    numbered(tmp_path / "test" / "s.tar", [3])
    numbered(tmp_path / "val" / "s.tar", [4], labels=lambda number: "a")
    train = load_dataset(tmp_path)
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1]
    assert load_dataset(tmp_path, split="test").labels is None
    assert greys(load_dataset(tmp_path, split="all")) == [1, 2, 3, 4], "also the third folder"


def test_of_a_folder_with_train_alone_nothing_is_held_out(tmp_path: Path) -> None:
    numbered(tmp_path / "train" / "s.tar", range(20))
    assert greys(load_dataset(tmp_path)) == list(range(20))
    with pytest.raises(ValueError, match="has train/ but no test/"):
        load_dataset(tmp_path, split="test")
    assert len(load_dataset(tmp_path / "train")) == 18


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no \.tar files"):
        open_shards(tmp_path)
    write_shard(tmp_path / "a.tar", [("0.png", b"no image"), ("1.png", png(1))])
    with pytest.raises(CorruptImage, match=r"a\.tar/0\.png"):
        open_shards(tmp_path).load(0)
    (tmp_path / "b.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(BrokenFile, match=r"b\.tar is no tar, or damaged at byte 0"):
        open_shards(tmp_path)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    Path(f"{path}{BESIDE}").unlink()


@pytest.mark.parametrize("size", [0, 700, 1100, 512 * 6])
def test_a_cut_shard_is_noticed_wherever_it_is_cut(tmp_path: Path, size: int) -> None:
    """Also between two members, where only the end of the tar is missing."""
    path = numbered(tmp_path / "a.tar", range(10))
    cut(path, size)
    with pytest.raises(BrokenFile, match="is cut off"):
        open_shards(path)


def test_broken_shards_are_skipped_only_if_asked_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        numbered(tmp_path / f"s-{number}.tar", range(number * 10, number * 10 + 10))
    cut(tmp_path / "s-1.tar", 3000)
    (tmp_path / "s-3.tar").unlink()
    pattern = tmp_path / "s-{0..3}.tar"
    with pytest.raises(BrokenFile, match=r"s-1\.tar is cut off"):
        load_dataset(pattern)
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset(pattern, split="all", shards=SKIPPING)
    assert greys(dataset) == [*range(10), *range(20, 30)]
    assert dataset.skipped == [str(tmp_path / "s-1.tar"), str(tmp_path / "s-3.tar")]
    assert [record.message.partition("shard ")[2][-21:] for record in caplog.records][1].endswith("is missing")
    assert named_images(pattern, shards=SKIPPING).skipped == dataset.skipped


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_gets_lost_stops_training_with_one_sentence_or_is_replaced_if_asked(
    tmp_path: Path, workers: int
) -> None:
    for number in range(3):
        numbered(tmp_path / f"s-{number}.tar", range(number * 10, number * 10 + 10))
    strict, lenient = (load_dataset(tmp_path, split="all", shards=config) for config in (None, SKIPPING))
    (tmp_path / "s-1.tar").unlink()
    with pytest.raises(BrokenFile, match=r"^\S*s-1\.tar is missing, tried 4 times$"):
        list(evaluation_batches(strict, PLAIN, batch_size=4, num_workers=workers))
    batches = list(evaluation_batches(lenient, PLAIN, batch_size=4, num_workers=workers))
    assert torch.cat([batch["index"] for batch in batches]).tolist() == [*range(10), *range(20, 30)]
    assert lenient.skipped == [f"{tmp_path}/s-1.tar"]


def test_a_shard_that_was_out_of_reach_for_a_while_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = numbered(tmp_path / "s-0.tar", range(10))
    numbered(tmp_path / "s-1.tar", range(10, 20))
    dataset = load_dataset(tmp_path, split="all", shards=SKIPPING)
    path.rename(tmp_path / "away")
    assert len(list(evaluation_batches(dataset, PLAIN, batch_size=5))) == 2
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"skipping {path}: it cannot be read as an image (the shard is missing, tried 4 times)"
    ]
    (tmp_path / "away").rename(path)
    with pytest.raises(CorruptImage, match=r"s-0\.tar/0000\.png"):
        dataset.load(0)
    monkeypatch.setattr("mage.data.tar_images.FORGOTTEN_AFTER", 0.0)
    assert greys(dataset) == list(range(20))


def test_reading_is_tried_again_before_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    stored, waited, calls = look_at(str(path)), list[float](), list[int]()
    monkeypatch.setattr(storage, "WAITS", (0.5, 2.0, 8.0))
    monkeypatch.setattr(storage.time, "sleep", waited.append)

    def flaky(name: str, mode: str) -> io.BytesIO:
        calls.append(1)
        return io.BytesIO(b"0123" if len(calls) < 4 else b"0123456789")

    monkeypatch.setattr(storage, "open", flaky, raising=False)
    assert storage.read(stored, 2, 5) == b"23456"
    assert waited == [0.5, 2.0, 8.0]
    monkeypatch.setattr(storage, "open", lambda name, mode: io.BytesIO(b"0"), raising=False)
    with pytest.raises(BrokenFile, match=r"cannot be read \(OSError: 0 bytes came where 5 were .*tried 4 times"):
        storage.read(stored, 2, 5)


def link(name: str) -> tarfile.TarInfo:
    entry = named(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


def device(name: str) -> tarfile.TarInfo:
    entry = named(name)
    entry.type = tarfile.CHRTYPE
    return entry


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (named("../../etc/0.png"), "which leads out of it"),
        (named("a/../../0.png"), "which leads out of it"),
        (named("/etc/0.png"), "which leads out of it"),
        (named("C:/0.png"), "which leads out of it"),
        (named("a\\0.png"), "which leads out of it"),
        (link("0.png"), "holds a link, '0.png': only files"),
        (device("0.png"), "holds a device"),
    ],
)
def test_what_a_shard_has_no_use_for_is_refused(tmp_path: Path, entry: tarfile.TarInfo, message: str) -> None:
    path = tar(tmp_path / "x.tar", (named("1.png"), png(1)), (entry, b""))
    with pytest.raises(BrokenFile, match=message):
        open_shards(path)


def test_names_with_a_colon_are_names(tmp_path: Path) -> None:
    assert open_shards(tar(tmp_path / "x.tar", (named("0:15.png"), png(1)))).names() == ["x.tar/0:15.png"]
    with pytest.raises(ValueError, match="leads out of it"):
        open_shards(tar(tmp_path / "y.tar", (named("C:15.png"), png(1))))


def test_names_that_are_not_utf_8_are_read_with_escapes(tmp_path: Path) -> None:
    """As old archives have them."""
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as shard:
        for name in ("caf\xe9.png", "caf\xe9/" + "long" * 40 + ".png"):
            entry = named(name)
            entry.size = len(png(0))
            shard.addfile(entry, io.BytesIO(png(0)))
    dataset = open_shards(tmp_path / "x.tar")
    assert [name.partition("/")[2][:8] for name in dataset.names()] == ["caf\\xe9.", "caf\\xe9/"]
    assert torch.equal(dataset.load(1), PICTURES[0])


def header(**changes: bytes) -> bytearray:
    """A tar's first header, with a right sum, after changes of single fields."""
    block = bytearray(tarfile.TarInfo("0.png").tobuf(tarfile.USTAR_FORMAT))
    for field, value in changes.items():
        start, length = {"size": (124, 12), "kind": (156, 1)}[field]
        block[start : start + length] = value.ljust(length, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (header(size=b"77777777777"), "is said to have 8,589,934,591 bytes, and"),
        (header(size=b"\x80" + b"\xff" * 11), "is said to have"),
        (header(size=b"\xff" * 12), "is no tar"),
        (header(size=b"-1"), "is no tar"),
        (header(kind=b"L", size=b"00077777777"), "declares a name of 16,777,215 bytes"),
        (header(kind=b"x", size=b"00000000400"), "damaged pax settings"),
    ],
)
def test_declared_sizes_are_believed_only_as_far_as_the_shard_reaches(
    tmp_path: Path, block: bytearray, message: str
) -> None:
    """Nothing is allocated for them: the most that is read is the shard."""
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(block) + b"a" * 2048 + bytes(1024))
    with pytest.raises(BrokenFile, match=message):
        open_shards(path)


@pytest.mark.parametrize("opened", ["gz", "bz2", "xz"])
def test_a_compressed_tar_under_another_name_is_refused_unread(tmp_path: Path, opened: str) -> None:
    """A bomb of 200 MB of zeros in 200 kB would otherwise be inflated."""
    with tarfile.open(tmp_path / "x.tar", f"w:{opened}") as shard:
        entry = named("0.png")
        entry.size = 2_000_000
        shard.addfile(entry, io.BytesIO(bytes(entry.size)))
    with pytest.raises(BrokenFile, match=r"is compressed \("):
        open_shards(tmp_path / "x.tar")


def test_two_images_of_one_name_and_labels_of_great_size_are_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", (named("0.png"), png(0)), (named("0.jpg"), png(1)))
    with pytest.raises(BrokenFile, match="two images called '0'"):
        open_shards(path)
    path = tar(tmp_path / "y.tar", (named("0.png"), png(0)), (named("0.cls"), bytes(2**20 + 1)))
    with pytest.raises(BrokenFile, match="has at most 1,048,576"):
        open_shards(path)


def test_headers_are_read_in_large_pieces_and_the_same_wherever_the_pieces_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = numbered(tmp_path / "x.tar", range(20), labels=str)
    stored, whole = look_at(str(path)), make_index(look_at(str(path)))
    asked: list[tuple[int, int]] = []

    def fetch(stored: Stored, start: int, count: int) -> bytes:
        asked.append((start, count))
        return storage.read(stored, start, count)

    make_index(stored, fetch)
    assert asked == [(0, stored.size)]
    for ahead in (512, 1000, 5000):
        monkeypatch.setattr("mage.data.tar_members.AHEAD", ahead)
        assert make_index(stored, fetch).to_json() == whole.to_json()


def test_an_epoch_enters_shard_after_shard_and_shows_each_image_once() -> None:
    shard = np.repeat(np.arange(40), 50)
    order = epoch_order(2000, Locality(shard, 5), seed=1, epoch=0)
    assert order.sort().values.tolist() == list(range(2000))
    first = {number: int((torch.from_numpy(shard)[order] == number).nonzero()[0]) for number in range(40)}
    last = {number: int((torch.from_numpy(shard)[order] == number).nonzero()[-1]) for number in range(40)}
    most = max(sum(first[n] <= place <= last[n] for n in range(40)) for place in range(2000))
    assert most <= 7, "at any place, images of about five shards are mixed"
    assert len({int(number) for number in torch.from_numpy(shard)[order[900:1000]]}) >= 4
    assert not torch.equal(order, epoch_order(2000, Locality(shard, 5), seed=1, epoch=1))
    assert torch.equal(order, epoch_order(2000, Locality(shard, 5), seed=1, epoch=0))
    everything = epoch_order(2000, Locality(shard, 40), seed=1, epoch=0)
    assert torch.equal(everything, epoch_order(2000, None, seed=1, epoch=0)), "a window over all is a plain shuffle"


def test_the_order_of_shards_does_not_depend_on_processes_and_resumes_anywhere(tmp_path: Path) -> None:
    for number in range(6):
        numbered(tmp_path / f"s-{number}.tar", range(number * 8, number * 8 + 8))
    whole = load_dataset(tmp_path, split="all", shards=ShardConfig(window=2))
    chosen = Subset(whole, range(40))  # as training reads them: without the held-out ones

    def seen(start: int, rank: int, processes: int, workers: int) -> list[list[int]]:
        share = Share(8, 1, rank, processes)
        loader = TrainLoader(chosen, PLAIN, share=share, seed=3, start=start, num_workers=workers)
        batches = iter(loader)
        return [next(batches)["index"].tolist() for _ in range(start, 10)]

    one = seen(0, 0, 1, 0)
    assert sorted(index for step in one[:5] for index in step) == list(range(40))
    two = [seen(3, rank, 2, workers) for rank, workers in ((0, 1), (1, 0))]
    assert [left + right for left, right in zip(*two, strict=True)] == one[3:]
    expected = epoch_order(40, Locality(np.repeat(np.arange(5), 8), 2), 3, 0).tolist()
    assert [index for step in one[:5] for index in step] == expected


def test_window_and_room_have_ranges() -> None:
    for wrong in ({"window": 0}, {"copies_gigabytes": -1.0}, {"copies_gigabytes": float("nan")}):
        with pytest.raises(ValueError, match=r"data\.shards: window must be at least 1"):
            ShardConfig(**wrong)
