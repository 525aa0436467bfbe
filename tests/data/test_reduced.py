"""Large JPEG files are read at a part of their size, where that changes nothing that matters."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

import mage
from mage import images, rng
from mage.data.datasets import load_dataset
from mage.data.image_sets import ArrayDataset, ImageDataset, Subset, load_reduced
from mage.data.loaders import TrainLoader, evaluation_batches
from mage.data.named_images import named_images
from mage.data.shard_writer import write_shards
from mage.data.transforms import TransformConfig, build_transform, needed_side
from mage.share import Share

SIZE = (32, 32)


class Own(Subset):
    """Some user's class."""

    def load(self, index: int) -> Tensor:
        return super().load(index)[:, :5, :5]


def photograph(height: int, width: int) -> Image.Image:
    """Smooth colours."""
    colours = torch.rand(1, 3, 3, 4, generator=rng.generator(0, "colours"))
    smooth = functional.interpolate(colours, (height, width), mode="bicubic").clamp(0, 1)[0]
    return images.to_pil(images.to_uint8(smooth))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six files of 640 x 480: JPEG, lying JPEG, grey JPEG, PNG, and small ones."""
    root = tmp_path_factory.mktemp("photos")
    picture, lying = photograph(480, 640), Image.Exif()
    lying[0x0112] = 6
    picture.save(root / "a.jpg", quality=95)
    picture.save(root / "b.jpg", quality=95, exif=lying)
    picture.convert("L").save(root / "c.jpg", quality=95)
    picture.save(root / "d.png")
    for name in ("e.jpg", "f.jpg"):
        picture.resize((90, 70)).save(root / name, quality=95)
    return root


def test_a_jpeg_file_is_read_at_the_smallest_size_that_is_large_enough(folder: Path) -> None:
    photos = load_dataset(folder, split="all")
    expected = {
        0: [(480, 640)] * 2 + [(240, 320), (120, 160), (60, 80), (60, 80)],
        1: [(640, 480)] * 2 + [(320, 240), (160, 120), (80, 60), (80, 60)],  # upright
        2: [(480, 640)] * 2 + [(240, 320), (120, 160), (60, 80), (60, 80)],
        3: [(480, 640)] * 6,
    }
    for index, shapes in expected.items():
        read = [load_reduced(photos, index, least) for least in (0, 241, 240, 120, 60, 1)]
        assert [tuple(image.shape[1:]) for image in read] == shapes
    assert photos.load(0).shape == (3, 480, 640)


def test_every_kind_of_data_set_passes_it_on(folder: Path, tmp_path: Path) -> None:
    write_shards(load_dataset(folder, split="all"), tmp_path / "shards", prefix="s", most_bytes=10_000_000)
    kinds: list[ImageDataset] = [
        Subset(load_dataset(folder, split="all"), [1, 0]),
        named_images(folder),
        load_dataset(tmp_path / "shards", split="all"),
    ]
    for photos in (*kinds, Subset(kinds[1], [2, 1, 0])):
        read = {tuple(load_reduced(photos, index, 100).shape[1:]) for index in range(len(photos))}
        assert read - {(480, 640), (70, 90)} == {(120, 160), (160, 120)}
        whole = {tuple(photos.load(index).shape[1:]) for index in range(len(photos))}
        assert whole - {(70, 90)} == {(480, 640), (640, 480)}
    assert load_reduced(Own(kinds[1], [0]), 0, 10).shape == (3, 5, 5), "a class of the user's that replaces load"
    array = ArrayDataset("grey", torch.zeros(2, 1, 200, 200, dtype=torch.uint8), None)
    assert load_reduced(array, 0, 10).shape == (1, 200, 200)


@pytest.mark.parametrize(
    ("config", "side"),
    [
        (TransformConfig(SIZE), 64),
        (TransformConfig((16, 40), augmentation="flip"), 80),
        (TransformConfig(SIZE, resize=37), 74),
        (TransformConfig(SIZE, augmentation="warp_flip"), 64),
        (TransformConfig(SIZE, augmentation="crop", scale=(0.25, 1.0), ratio=(1.0, 1.0)), 128),
        (TransformConfig(SIZE, augmentation="crop_flip"), 2 * 83),  # of a crop of a fifth that is 4 : 3
    ],
)
def test_no_crop_is_enlarged(config: TransformConfig, side: int) -> None:
    assert needed_side(build_transform(config)) == side
    assert needed_side(lambda image, generator: image) == 0


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_batches_hardly_differ_from_those_of_whole_images(
    folder: Path, augmentation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform = build_transform(TransformConfig(SIZE, augmentation=augmentation, scale=(0.5, 1.0)))
    photos, read = load_dataset(folder, split="all"), list[tuple[int, ...]]()
    decode = images.load_image

    def watched(*words: Any, **more: Any) -> Tensor:
        image = decode(*words, **more)
        read.append(tuple(image.shape[1:]))
        return image

    monkeypatch.setattr("mage.images.load_image", watched)
    if augmentation == "none":
        batch = next(iter(evaluation_batches(photos, transform)))
        name: tuple[Any, ...] = ("evaluate",)
    else:
        batch = next(iter(TrainLoader(photos, transform, share=Share(6), seed=0)))
        name = ("augment", 0)
    assert max(max(shape) for shape in read) == 640, "the PNG file"
    assert sorted(max(shape) for shape in read)[-2] <= 320
    for index, got in zip(batch["index"].tolist(), batch["images"], strict=True):
        expected = transform(photos.load(index), rng.generator(0, *name, index))
        difference = (got.int() - expected.int()).abs().float()
        if augmentation == "none":
            assert difference.max() <= 8
        assert difference.mean() < (1 if augmentation == "none" else 2), "a random crop begins at whole pixels"


def test_a_model_reads_files_as_batches_do(folder: Path) -> None:
    model = mage.load("cifar10", device="cpu", precision="float32")
    batch = next(iter(evaluation_batches(load_dataset(folder, split="all"), build_transform(TransformConfig(SIZE)))))
    files = [folder / name for name in ("a.jpg", "b.jpg", "c.jpg", "d.png", "e.jpg", "f.jpg")]
    assert torch.equal(model.features(files), model.features(images.to_float(batch["images"])))
    assert torch.equal(torch.stack([model.transform(file) for file in files]), images.to_float(batch["images"]))
