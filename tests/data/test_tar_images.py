"""Tar shards of images."""

from pathlib import Path

import pytest
import torch

from mage import images, rng
from mage.data.datasets import CorruptImage, ImageDataset
from mage.data.tar_images import TarDataset, write_shard

PICTURES = torch.randint(0, 256, (5, 3, 6, 7), generator=rng.generator(0), dtype=torch.uint8)


def png(index: int) -> bytes:
    return images.png_bytes(images.to_float(PICTURES[index]))


def test_images_come_back_in_order_from_all_shards(tmp_path: Path) -> None:
    write_shard(tmp_path / "b.tar", [("3.png", png(3)), ("4.png", png(4))])
    write_shard(tmp_path / "a.tar", [("0.png", png(0)), ("0.cls", b"cat"), ("1.png", png(1)), ("2.png", png(2))])
    found = TarDataset.open(tmp_path)
    assert isinstance(found, ImageDataset)
    assert len(found) == 5
    for index in range(5):
        assert torch.equal(found.load(index), PICTURES[index])
    assert found.load(1).shape[0] == 3
    assert TarDataset.open(tmp_path, channels=1).load(1).shape == (1, 6, 7)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, [("0.png", png(0))])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no \.tar files"):
        TarDataset.open(tmp_path)
    write_shard(tmp_path / "a.tar", [("0.png", b"no image"), ("1.png", png(1))])
    with pytest.raises(CorruptImage, match=r"a\.tar/0\.png"):
        TarDataset.open(tmp_path).load(0)
    (tmp_path / "b.tar").write_bytes(b"no tar")
    with pytest.raises(ValueError, match=r"b\.tar is not a readable tar"):
        TarDataset.open(tmp_path)
