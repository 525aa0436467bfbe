"""JPEG files decoded and augmented beside the network: the batches of the workers' way, and the same refusals."""

import itertools
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mage import runs
from mage.data import device_images
from mage.data.datasets import Subset, load_dataset
from mage.data.device_images import DeviceImages, Packed, is_plain_jpeg
from mage.data.image_sets import ImageDataset
from mage.data.loaders import TrainLoader
from mage.data.shard_writer import write_shard
from mage.data.transforms import TransformConfig, build_transform
from mage.recipes import named
from mage.settings import override
from mage.share import Share
from tests.reference.launches import quiet

pytest.importorskip("torchcodec", reason="pip install torchcodec")
CPU = torch.device("cpu")
VIEWS = TransformConfig(size=(16, 16), augmentation="crop_flip")


def picture(number: int) -> Image.Image:
    """A picture of its own size, smooth, so that decoders agree to a level or two."""
    height, width = 24 + number, 40 - number
    rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    levels = torch.stack([rows, columns, torch.full_like(rows, number / 20)])
    return Image.fromarray((255 * levels).byte().permute(1, 2, 0).numpy())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures: JPEG, a PNG, a grey JPEG, one of CMYK, one that is to be turned."""
    folder = tmp_path / "pictures"
    for number in range(12):
        place = folder / ("even", "odd")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        image, settings, suffix = picture(number), dict[str, Any](quality=95), "jpg"
        if number == 3:
            suffix, settings = "png", {}
        elif number == 4:
            image = image.convert("L")
        elif number == 5:
            image = image.convert("CMYK")
        elif number == 6:
            settings["exif"] = Image.Exif()
            settings["exif"][0x0112] = 6
        image.save(place / f"{number:02}.{suffix}", **settings)
    return folder


def loader(dataset: ImageDataset, **settings: Any) -> TrainLoader:
    return TrainLoader(dataset, build_transform(VIEWS), seed=3, **({"share": Share(4)} | settings))


def take(batches: Any, count: int) -> list[dict[str, Tensor]]:
    return list(itertools.islice(batches, count))


def assert_alike(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in ("index", "labels"):
            assert torch.equal(one[name], other[name])
        for name in one.keys() - {"index", "labels"}:
            assert one[name].dtype == torch.uint8
            assert (one[name].int() - other[name].int()).abs().max() <= 3, "levels between two decoders"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pairs", [False, True])
def test_batches_are_those_of_the_workers(folder: Path, workers: int, pairs: bool) -> None:
    dataset = load_dataset(folder, split="all")
    theirs = take(loader(dataset, pairs=pairs), 7)
    ours = take(DeviceImages(loader(dataset, pairs=pairs, num_workers=workers), CPU), 7)
    assert_alike(ours, theirs)
    later = take(DeviceImages(loader(dataset, pairs=pairs, start=5), CPU), 2)
    for one, other in zip(later, ours[5:], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_processes_take_their_parts_of_the_same_batches(folder: Path) -> None:
    dataset = load_dataset(folder, split="all")
    whole = take(DeviceImages(loader(dataset), CPU), 3)
    parts = [take(DeviceImages(loader(dataset, share=Share(4, 1, rank, 2)), CPU), 3) for rank in (0, 1)]
    for number, batch in enumerate(whole):
        both = {
            int(index): image
            for part in parts
            for index, image in zip(part[number]["index"], part[number]["images"], strict=True)
        }
        assert sorted(both) == sorted(batch["index"].tolist())
        assert all(
            torch.equal(both[int(index)], image) for index, image in zip(batch["index"], batch["images"], strict=True)
        )


@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_decoded_as_they_are_and_others_by_the_workers(
    folder: Path, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    real = device_images._decoder()

    def decode(files: list[Tensor], **settings: Any) -> Any:
        decoded.append(len(files))
        return real(files, **settings)

    monkeypatch.setattr(device_images, "_decoder", lambda: decode)
    dataset = load_dataset(folder, split="all", channels=channels)
    batches = take(DeviceImages(loader(dataset, share=Share(12)), CPU), 1)
    assert decoded == [8 if channels == 3 else 1], "of twelve, one is PNG, one CMYK, one turned, one grey"
    assert_alike(batches, take(loader(dataset, share=Share(12)), 1))


def test_shards_and_subsets_give_their_files(folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.rglob("*.*"))
    write_shard(
        tmp_path / "a.tar", [(f"{number:02}{file.suffix}", file.read_bytes()) for number, file in enumerate(files)]
    )
    dataset = Subset(load_dataset(tmp_path / "a.tar", split="all"), list(range(2, 12)))
    assert_alike(take(DeviceImages(loader(dataset), CPU), 4), take(loader(dataset), 4))


def test_a_damaged_file_is_replaced_and_named_as_ever(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (folder / "even" / "02.jpg").read_bytes()
    scan = whole.index(b"\xff\xda")
    (folder / "even" / "02.jpg").write_bytes(whole[: (scan + len(whole)) // 2])
    (folder / "odd" / "07.jpg").write_bytes(b"")
    (folder / "odd" / "03.png").unlink()
    (folder / "odd" / "03.png").mkdir()
    dataset, other = load_dataset(folder, split="all"), load_dataset(folder, split="all")
    with caplog.at_level(logging.WARNING):
        ours = take(DeviceImages(loader(dataset), CPU), 6)
    assert_alike(ours, take(loader(other), 6))
    assert dataset.skipped == other.skipped
    assert len(dataset.skipped) == 2
    assert sum("the host decodes it" in line for line in caplog.messages) == 1


def test_an_error_of_the_augmentation_is_not_taken_for_a_damaged_file(folder: Path) -> None:
    def broken(image: Tensor, generator: torch.Generator) -> Tensor:
        raise RuntimeError("on two devices")

    loader = TrainLoader(load_dataset(folder, split="all"), broken, share=Share(4), seed=0)
    images_ = DeviceImages(loader, CPU)
    packed = Packed(0, 0, [0], {}, [3], torch.zeros(3, dtype=torch.uint8), [])
    images_._decode = lambda files, **more: [torch.zeros(3, 4, 4, dtype=torch.uint8)]
    with pytest.raises(RuntimeError, match="on two devices"):
        images_._items(packed)
    images_.loader.batch_of = lambda number: pytest.fail("it was taken for a damaged file")
    with pytest.raises(RuntimeError, match="on two devices"):
        images_._batch(packed)


def test_no_readable_image_is_an_error(folder: Path) -> None:
    for file in folder.rglob("*.*"):
        file.write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(ValueError, match="none of the 12 images"):
        next(iter(DeviceImages(loader(load_dataset(folder, split="all")), CPU)))


def test_without_the_package_a_run_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ValueError, match=r"pip install 'mage-vision\[decode\]'"):
        DeviceImages(loader(load_dataset(folder, split="all")), CPU)


def test_headers_that_promise_too_many_pixels_are_left_to_the_host(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (folder / "even" / "00.jpg").read_bytes()
    assert is_plain_jpeg(data, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40 - 1)
    assert not is_plain_jpeg(data, 3)


def test_a_run_decodes_where_its_recipe_says(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.device] = []
    real = DeviceImages.__init__

    def noted(self: DeviceImages, given: TrainLoader, device: torch.device) -> None:
        made.append(device)
        real(self, given, device)

    monkeypatch.setattr(DeviceImages, "__init__", noted)
    recipe = override(
        named("smoke"), [f"data.name={folder}", "data.channels=3", "tokenizer.channels=3", "data.decode_on=device"]
    )
    recipe = override(
        recipe, ["tokenizer_training.steps=2", "tokenizer_training.batch_size=4", "tokenizer_training.epochs=0"]
    )
    runs.train_tokenizer(recipe, quiet(tmp_path / "run"))
    assert made
    assert made[-1].type == "cpu"
