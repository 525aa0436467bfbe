"""Other libraries' data sets as data sets of this one, from rows to a trained tokenizer and a table of features."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import mage
from mage import images, runs
from mage.data.datasets import DATASETS, CorruptImage, ImageDataset, content_of
from mage.data.named_images import named_images
from mage.data.rows import RowDataset, register_rows
from mage.recipes import named
from mage.settings import override
from tests.reference.launches import quiet

LABELS = [number % 3 for number in range(60)]
NAMES = ["low", "middle", "high"]


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)


@pytest.fixture
def hugging(pixels: np.ndarray) -> datasets.Dataset:
    features = datasets.Features({"img": datasets.Image(), "level": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({"img": list(pixels), "level": LABELS}, features=features)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    DATASETS.remove("from-rows")


def test_rows_of_hugging_face_give_their_images_labels_and_names(hugging: datasets.Dataset, pixels: np.ndarray) -> None:
    rows = RowDataset(hugging, name="levels", image="img", label="level", channels=1)
    assert isinstance(rows, ImageDataset)
    assert len(rows) == 60
    assert rows.class_names == tuple(NAMES)
    assert rows.labels is not None
    assert rows.labels.tolist() == LABELS
    assert torch.equal(rows.load(7), torch.from_numpy(pixels[7])[None])
    assert RowDataset(hugging, name="levels", image="img").load(7).shape == (3, 8, 8)
    undecoded = hugging.cast_column("img", datasets.Image(decode=False))
    assert torch.equal(RowDataset(undecoded, name="levels", image="img", channels=1).load(7), rows.load(7))


def test_undecoded_rows_of_files_are_read_from_their_paths(tmp_path: Path, pixels: np.ndarray) -> None:
    images.save_png(tmp_path / "a.png", torch.from_numpy(pixels[7])[None] / 255)
    rows = RowDataset(
        [{"image": {"bytes": None, "path": str(tmp_path / "a.png")}}], name="x", image="image", channels=1
    )
    assert torch.equal(rows.load(0), torch.from_numpy(pixels[7])[None])


def test_a_row_that_is_too_large_to_be_decoded_is_unreadable() -> None:
    class Decoding(list[int]):
        def __getitem__(self, index: Any) -> Any:
            if index:
                raise Image.DecompressionBombError("too many pixels")
            return (Image.new("L", (2, 2)),)

    with pytest.raises(CorruptImage, match=r"row 1 of x \(too many pixels\)"):
        RowDataset(Decoding([0, 1]), name="x").load(1)


def test_changed_rows_of_hugging_face_are_other_content(hugging: datasets.Dataset) -> None:
    """Token caches and runs are kept apart by it."""
    first, second = (
        content_of(RowDataset(rows, name="levels", image="img")) for rows in (hugging, hugging.select(range(30)))
    )
    assert first != second


def test_tuples_of_torch_are_read_by_number(pixels: np.ndarray) -> None:
    tensors = torch.from_numpy(pixels)[:, None] / 255
    rows = RowDataset(TensorDataset(tensors, torch.tensor(LABELS)), name="levels", label=1, channels=1)
    assert rows.labels is not None
    assert rows.labels.tolist() == LABELS
    assert rows.class_names == ("0", "1", "2")
    assert torch.equal(rows.load(3), torch.from_numpy(pixels[3])[None])


class Labelled:
    """torchvision's way: labels lie apart."""

    classes = NAMES
    targets = LABELS

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        assert index == 0 or index == 59, "labels are not read from the rows"
        return Image.new("L", (8, 8), 100), LABELS[index]


def test_labels_that_lie_apart_are_taken_without_reading_images() -> None:
    rows = RowDataset(Labelled(), name="levels", label=1, channels=1)
    assert rows.labels is not None
    assert (rows.class_names, rows.labels.tolist()) == (tuple(NAMES), LABELS)
    assert rows.load(59).unique().tolist() == [100]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (iter([]), {}, "must have a length and an index"),
        ([], {}, "holds no rows"),
        ([{"image": 0}], {"image": "picture"}, "no column 'picture'; there are 'image'"),
        ([(0,)], {"label": 1}, "no column 1; there are numbers below 1"),
        ([(0, 0.5), (0, 0.5)], {"label": 1}, "one whole number per row, not float64"),
        ([(0, -1), (0, 1)], {"label": 1}, "run from -1 to 1"),
        ([(0, 0), (0, 2)], {"label": 1, "class_names": ["a", "b"]}, "run from 0 to 2, but 2 classes have names"),
    ],
)
def test_rows_that_cannot_be_read_are_told(rows: Any, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RowDataset(rows, name="levels", **columns)


class Changing(Labelled):
    """Rows whose labels are not those that lie apart."""

    @staticmethod
    def target_transform(label: int) -> int:
        return len(NAMES) - 1 - label

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("L", (8, 8), 100), self.target_transform(LABELS[index])


def test_labels_that_rows_change_are_read_from_the_rows() -> None:
    rows = RowDataset(Changing(), name="levels", label=1, channels=1)
    assert rows.labels is not None
    assert rows.labels.tolist() == [len(NAMES) - 1 - label for label in LABELS]


def test_whatever_a_row_raises_it_is_a_corrupt_image() -> None:
    class Broken:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            if index:
                raise SyntaxError("broken PNG file")
            return (Image.new("L", (8, 8)),)

    rows = RowDataset(Broken(), name="levels")
    with pytest.raises(CorruptImage, match=r"row 1 of levels .*broken PNG file"):
        rows.load(1)


def test_a_row_without_an_image_is_a_corrupt_image() -> None:
    rows = RowDataset([("none.png",)], name="levels")
    with pytest.raises(CorruptImage, match=r"row 0 of levels .*none\.png"):
        rows.load(0)


def test_changed_rows_without_a_hash_are_described_anew(tmp_path: Path) -> None:
    rows = [(Image.new("L", (8, 8), level),) for level in (10, 20, 30)]
    register_rows("plain", train=rows)
    versions = [named_images("plain", split="train").version(index) for index in range(3)]
    assert len(set(versions)) == 3
    rows[1] = (Image.new("L", (8, 8), 99),)
    again = [named_images("plain", split="train").version(index) for index in range(3)]
    assert [old == new for old, new in zip(versions, again, strict=True)] == [True, False, True]


def test_registered_rows_are_trained_on_and_embedded_by_name(
    hugging: datasets.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    register_rows("from-rows", train=hugging, image="img", label="level")
    recipe = override(named("smoke"), ["data.name=from-rows"])
    assert runs.train_tokenizer(recipe, quiet(tmp_path / "tokenizer")).steps == 12
    sizes = mage.MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    model = mage.build(sizes, tokenizer=recipe.tokenizer, precision="float32")
    table = runs.embed(model, "from-rows", tmp_path / "features.npz", split="train")
    assert table.images == 60
    with np.load(tmp_path / "features.npz") as written:
        assert sorted(set(written["label"].tolist())) == sorted(NAMES)
        assert written["features"].shape == (60, 16)
    with pytest.raises(ValueError, match="registered without test rows: give test="):
        mage.load_dataset("from-rows", split="test")
    with pytest.raises(ValueError, match="exists already"):
        register_rows("from-rows", train=hugging)
