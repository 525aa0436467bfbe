"""Tables of a folder's images: right rows in order, resumed after a stop, repeated at no cost, never mixed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mage
from mage import images, rng, runs
from mage.data.datasets import DATASETS, ArrayDataset
from mage.data.named_images import named_images
from mage.data.rows import RowDataset
from mage.evaluation.image_classifier import FORMAT, ClassifierConfig, ImageClassifier
from mage.evaluation.linear_head import LinearHead
from mage.models import MAGEConfig
from mage.recipes import named
from mage.runs import rows
from mage.runs.predict import agreement
from mage.runs.table_files import Column, read_table

WIDTH = 16
ODD = 'a "name", with\rall\n\u00e9.png'
FEATURES = (*rows.IDENTITY, Column("features", "vector", WIDTH))


@pytest.fixture(scope="module")
def model() -> mage.Mage:
    sizes = MAGEConfig(WIDTH, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return mage.build(sizes, tokenizer=named("smoke").tokenizer, precision="float32")


def picture(path: Path, number: int) -> None:
    images.save_png(path, torch.rand(1, 9, 8, generator=rng.generator(number, "picture")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images in two sub-folders, one outside of them with a difficult name, and one that is broken."""
    root = tmp_path / "photos"
    for number in range(20):
        picture(root / ("cats" if number % 2 else "dogs") / f"{number:02d}.png", number)
    picture(root / ODD, 20)
    (root / "cats" / "broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few rows, and one in memory, so that a folder of twenty images has many."""
    monkeypatch.setattr(rows, "PIECE_ROWS", 5)
    monkeypatch.setattr(rows, "PIECES_IN_MEMORY", 1)
    for module in ("mage.runs.rows", "mage.runs.table_files"):
        monkeypatch.setattr(f"{module}.ROWS", 3)


def contents(path: Path, columns: tuple[Column, ...] = FEATURES) -> dict[str, np.ndarray]:
    pieces = list(read_table(path, columns))
    return {column.name: np.concatenate([piece[column.name] for piece in pieces]) for column in columns}


def expected(model: mage.Mage, folder: Path) -> dict[str, np.ndarray]:
    """Features file by file, straight from the model."""
    files = sorted(
        (path for path in folder.rglob("*.png") if path.name != "broken.png"),
        key=lambda path: path.relative_to(folder).as_posix(),
    )
    return {path.relative_to(folder).as_posix(): model.features(path)[0].numpy() for path in files}


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_every_readable_image_has_its_features_under_its_name(model: mage.Mage, folder: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = folder.parent / f"features{suffix}"
    for number in range(0, 20, 3):  # most rows come later than some of their neighbours
        shutil.move(folder / ("cats" if number % 2 else "dogs") / f"{number:02d}.png", folder.parent)
    first = runs.embed(model, folder, out, batch_size=2)
    assert (first.images, first.computed) == (14, 14)
    assert [Path(name).name for name in first.skipped] == ["broken.png"]
    for number in range(0, 20, 3):
        shutil.move(folder.parent / f"{number:02d}.png", folder / ("cats" if number % 2 else "dogs"))
    second = runs.embed(model, folder, out, batch_size=4)
    assert (second.images, second.computed) == (21, 7)
    wanted, table = expected(model, folder), contents(out)
    assert table["file"].tolist() == list(wanted)
    np.testing.assert_allclose(table["features"], np.stack(list(wanted.values())), atol=1e-5)
    labels = [name.split("/")[0] if "/" in name else "" for name in wanted]
    assert table["label"].tolist() == labels
    assert table["size"].tolist() == [(folder / name).stat().st_size for name in wanted]
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted(["photos", out.name, f"{out.name}.json"])
    third = runs.embed(model, folder, out, batch_size=4)
    assert (third.images, third.computed) == (21, 0)
    again = contents(out)
    assert all(np.array_equal(table[name], again[name]) for name in table), "reading and writing changes no number"


def stopping(model: mage.Mage, monkeypatch: pytest.MonkeyPatch, after: int, error: type[BaseException]) -> list[int]:
    """Lets the features fail after so many calls, the first of which measures their width; counts images."""
    counts: list[int] = []
    features = mage.Mage.features

    def failing(self: mage.Mage, pixels: Any, *more: Any, **words: Any) -> torch.Tensor:
        if len(counts) == after:
            raise error("stopped")
        counts.append(len(pixels))
        return features(self, pixels, *more, **words)

    monkeypatch.setattr(mage.Mage, "features", failing)
    return counts


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_stopped_run_goes_on_where_it_was(
    model: mage.Mage, folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    out = folder.parent / "features.npz"
    with monkeypatch.context() as patch:
        stopping(model, patch, 4, error)
        with pytest.raises(error):
            runs.embed(model, folder, out, batch_size=4)
    assert not out.exists()
    assert (folder.parent / "features.npz.parts").is_dir()
    assert rows.precision_in(out) == "float32"
    (folder.parent / "features.npz.parts" / ".piece-000009.npz.1.tmp").write_bytes(b"half a piece")
    done: list[int] = []
    table = runs.embed(model, folder, out, batch_size=4, on_images=done.append)
    assert rows.precision_in(out) == "float32"
    assert done[0] == 11, "three batches were kept, one of them with the broken file"
    assert (table.images, table.computed) == (21, 10)
    assert contents(out)["file"].tolist() == list(expected(model, folder))
    assert not (folder.parent / "features.npz.parts").exists()
    out.unlink()
    assert rows.precision_in(out) is None, "the file beside a table that is gone says nothing"


def test_a_changed_file_is_computed_again_and_a_deleted_one_is_dropped(model: mage.Mage, folder: Path) -> None:
    out = folder.parent / "features.csv"
    before = runs.embed(model, folder, out)
    picture(folder / "dogs" / "04.png", 99)
    os.utime(folder / "dogs" / "04.png", ns=(1, 1))
    (folder / "dogs" / "06.png").unlink()
    after = runs.embed(model, folder, out)
    assert (before.images, after.images, after.computed) == (21, 20, 1)
    wanted, table = expected(model, folder), contents(out)
    assert table["file"].tolist() == list(wanted)
    np.testing.assert_allclose(table["features"], np.stack(list(wanted.values())), atol=1e-5)


def test_images_without_files_are_computed_again_if_they_show_something_else(model: mage.Mage, tmp_path: Path) -> None:
    arrays = {
        name: torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8, generator=rng.generator(0, name)) for name in "ab"
    }
    arrays["b"][3] = arrays["a"][3]
    DATASETS.add("moving", lambda split, root, channels: ArrayDataset("moving", arrays[str(root)], None))
    DATASETS.add("others", lambda split, root, channels: RowDataset([(np.eye(8),)] * 4, name="others", channels=1))
    out = tmp_path / "features.csv"
    computed = [
        runs.embed(model, name, out, split="test", data_root=root).computed
        for name, root in (("moving", "a"), ("moving", "a"), ("moving", "b"), ("others", None), ("others", None))
    ]
    assert computed == [4, 0, 3, 4, 0]
    np.testing.assert_allclose(contents(out)["features"], model.features(np.eye(8)).expand(4, -1), atol=1e-5)


def test_labels_of_rows_that_are_kept_follow_new_folders(model: mage.Mage, tmp_path: Path) -> None:
    out = tmp_path / "features.csv"
    picture(tmp_path / "photos" / "train" / "cat" / "a.png", 0)
    runs.embed(model, tmp_path / "photos", out)
    assert contents(out)["label"].tolist() == ["train"]
    picture(tmp_path / "photos" / "test" / "dog" / "c.png", 1)
    assert runs.embed(model, tmp_path / "photos", out).computed == 1
    assert contents(out)["label"].tolist() == ["dog", "cat"]


def test_a_slow_model_writes_a_piece_a_minute(model: mage.Mage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE_ROWS", 4096)
    monkeypatch.setattr(rows, "PIECE_SECONDS", 0.0)
    written: list[int] = []
    add = rows._Pieces.add
    monkeypatch.setattr(rows._Pieces, "add", lambda self, parts: (written.append(len(parts)), add(self, parts))[1])
    runs.embed(model, folder, folder.parent / "features.npz", batch_size=4)
    assert written == [1, 1, 1, 1, 1, 1, 0]


def test_features_of_two_models_pools_or_precisions_do_not_share_a_table(model: mage.Mage, folder: Path) -> None:
    out = folder.parent / "features.npz"
    runs.embed(model, folder, out)
    other = mage.build(MAGEConfig(WIDTH, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2),
                       tokenizer=named("smoke").tokenizer, precision="float32", seed=1)  # fmt: skip
    before = out.read_bytes()
    for wrong, words in ((other, {}), (model, {"pool": "both"})):
        with pytest.raises(ValueError, match=r"was made otherwise \((model|pool): "):
            runs.embed(wrong, folder, out, **words)
    assert out.read_bytes() == before
    (folder.parent / "mine.csv").write_text("file,price\n")
    with pytest.raises(ValueError, match="choose another name"):
        runs.embed(model, folder, folder.parent / "mine.csv")
    (folder.parent / "features.npz.json").write_text("[1")
    with pytest.raises(ValueError, match="does not say how"):
        runs.embed(model, folder, out)


def test_a_damaged_table_is_named_and_kept(model: mage.Mage, folder: Path) -> None:
    out = folder.parent / "features.npz"
    runs.embed(model, folder, out)
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"features\.npz is not a table .* or is damaged"):
        runs.embed(model, folder, out)
    assert out.read_bytes() == whole[: len(whole) // 2]
    assert not (folder.parent / "features.npz.parts").exists()


def test_a_folder_without_a_readable_image_leaves_nothing_behind(model: mage.Mage, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "one.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 1 images"):
        runs.embed(model, tmp_path / "bad", tmp_path / "features.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_only_new_files_that_are_all_broken_keep_the_old_rows(model: mage.Mage, folder: Path) -> None:
    out = folder.parent / "features.npz"
    runs.embed(model, folder, out)
    (folder / "dogs" / "99.png").write_bytes(b"no image")
    table = runs.embed(model, folder, out)
    assert (table.images, table.computed, len(table.skipped)) == (21, 0, 2)
    assert len(json.loads((folder.parent / "features.npz.json").read_text())["skipped"]) == 2


def test_a_parquet_without_its_package_is_refused_before_any_work(
    model: mage.Mage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("mage.runs.table_files.importlib.import_module", missing)
    with pytest.raises(ValueError, match=r"pip install 'mage-vision\[tables\]'"):
        runs.embed(model, folder, folder.parent / "features.parquet")
    with pytest.raises(ValueError, match=r"must end in \.csv, \.parquet or \.npz"):
        runs.embed(model, folder, folder.parent / "features.txt")


def test_labels_lie_below_train_and_test_and_named_sets_have_both_splits(tmp_path: Path) -> None:
    for number, place in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        picture(tmp_path / place / "0.png", number)
    listed = named_images(tmp_path, channels=1)
    assert [(listed.file(index), listed.label(index)) for index in range(4)] == [
        ("test/cat/0.png", "cat"), ("test/dog/0.png", "dog"), ("train/cat/0.png", "cat"), ("train/dog/0.png", "dog"),
    ]  # fmt: skip
    part = named_images(tmp_path, split="train", channels=1)
    assert [(part.file(index), part.label(index)) for index in range(2)] == [
        ("train/cat/0.png", "cat"), ("train/dog/0.png", "dog"),
    ]  # fmt: skip
    digits = named_images("digits")
    assert len(digits) == 1797
    assert (digits.file(0), digits.file(1500)) == ("train/0000000", "test/0000000")
    assert digits.label(1500) in set("0123456789")


def test_a_path_is_a_folder_also_where_a_data_set_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        picture(tmp_path / "digits" / "cat" / f"{number}.png", number)
    monkeypatch.chdir(tmp_path)
    listed = named_images(Path("digits"), channels=1)
    assert [listed.file(index) for index in range(len(listed))] == ["cat/0.png", "cat/1.png"]
    assert {split: part.images for split, part in runs.shards(Path("digits"), tmp_path / "shards").items()} == {"": 2}


@pytest.fixture
def classifier(model: mage.Mage) -> ImageClassifier:
    weight = torch.randn(3, WIDTH, generator=rng.generator(0, "weight"))
    head = LinearHead(torch.zeros(WIDTH), torch.ones(WIDTH), weight, torch.zeros(3))
    return ImageClassifier(model, head, ClassifierConfig(FORMAT, ("cats", "dogs", "fish")))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_predictions_are_the_classifiers_answers_by_file(
    classifier: ImageClassifier, folder: Path, suffix: str
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = folder.parent / f"classes{suffix}"
    table = runs.predict(classifier, folder, out, batch_size=4)
    found = contents(out, (*rows.IDENTITY, Column("class", "text"), Column("score", "number")))
    answers = classifier.predict([folder / name for name in found["file"]])
    assert found["class"].tolist() == [answer.name for answer in answers]
    assert len(set(found["class"])) > 1
    np.testing.assert_allclose(found["score"], [answer.score for answer in answers], atol=1e-5)
    assert agreement(table, classifier.class_names) is None, "one image lies in no sub-folder"
    (folder / ODD).unlink()
    again = runs.predict(classifier, folder, out)
    assert (again.images, again.computed) == (20, 0)
    compared = agreement(again, classifier.class_names)
    assert compared is not None
    right = sum(answer.name == name.split("/")[0] for answer, name in zip(answers, found["file"], strict=True))
    assert (compared.right, compared.images) == (right, 20)


def test_predictions_of_another_head_are_refused(classifier: ImageClassifier, folder: Path) -> None:
    out = folder.parent / "classes.csv"
    runs.predict(classifier, folder, out)
    assert classifier.head is not None
    classifier.head.bias[0] += 1
    with pytest.raises(ValueError, match=r"was made otherwise \(classifier: "):
        runs.predict(classifier, folder, out)
