"""Loaders: every batch is a function of its number, and corrupt files cost nothing but themselves."""

import itertools
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mage import rng
from mage.data.datasets import ArrayDataset, CorruptImage, FolderDataset, load_dataset
from mage.data.epoch_order import epoch_order
from mage.data.loaders import NoneReadable, TrainLoader, decode_to_memory, evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.recipes import FINETUNES, named
from mage.settings import override
from mage.share import Share

SHIFT = build_transform(TransformConfig(size=(8, 8), augmentation="shift"))
PLAIN = build_transform(TransformConfig(size=(8, 8)))
WORKERS = pytest.mark.parametrize("num_workers", [0, 2])


def numbered(count: int, labelled: bool = True) -> ArrayDataset:
    """Random images of 8 x 8 with the image's number as its label."""
    array = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=rng.generator(0, "test"))
    return ArrayDataset("numbered", array, np.arange(count) if labelled else None)


def folder(root: Path, count: int, corrupt: tuple[int, ...] = ()) -> FolderDataset:
    """Images 0 to count - 1 as files whose pixels are their numbers, in two classes."""
    for number in range(count):
        path = root / "train" / ("even", "odd")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(path)
        if number in corrupt:
            path.write_bytes(b"broken")
    (root / "test").mkdir()
    dataset = load_dataset(root, channels=1)
    assert isinstance(dataset, FolderDataset)
    return dataset


def take(loader: TrainLoader, count: int) -> list[dict[str, Tensor]]:
    return list(itertools.islice(iter(loader), count))


def assert_same(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys() == {"images", "labels", "index"}
        assert all(torch.equal(one[name], other[name]) for name in one)


@WORKERS
def test_batches_from_a_later_start_are_those_of_a_whole_run(num_workers):
    whole = take(TrainLoader(numbered(10), SHIFT, share=Share(3), seed=1), 9)
    resumed = TrainLoader(numbered(10), SHIFT, share=Share(3), seed=1, start=4, num_workers=num_workers)
    assert_same(take(resumed, 5), whole[4:])


def test_a_batch_is_uint8_with_labels_and_the_numbers_of_its_images():
    dataset = numbered(10)
    batch = take(TrainLoader(dataset, PLAIN, share=Share(4), seed=0), 1)[0]
    assert batch["images"].dtype == torch.uint8
    assert batch["labels"].dtype == batch["index"].dtype == torch.int64
    assert torch.equal(batch["labels"], batch["index"])
    assert torch.equal(batch["images"], dataset.array[batch["index"]])
    unlabelled = take(TrainLoader(numbered(10, labelled=False), PLAIN, share=Share(4), seed=0), 1)[0]
    assert unlabelled["labels"].tolist() == [-1] * 4


def test_an_epoch_shows_each_image_once_and_the_next_one_in_another_order_and_view():
    batches = take(TrainLoader(numbered(12), SHIFT, share=Share(4), seed=0), 6)
    first, second = (torch.cat([batch["index"] for batch in part]) for part in (batches[:3], batches[3:]))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(12))
    assert first.tolist() != second.tolist()
    views = [torch.cat([batch["images"] for batch in part]) for part in (batches[:3], batches[3:])]
    assert not torch.equal(views[0][first.argsort()], views[1][second.argsort()])


def test_a_ragged_end_is_left_out_and_another_seed_gives_another_order():
    batches = take(TrainLoader(numbered(11), PLAIN, share=Share(4), seed=0), 4)
    assert all(len(batch["index"]) == 4 for batch in batches)
    assert len(set(torch.cat([batch["index"] for batch in batches[:2]]).tolist())) == 8
    other = take(TrainLoader(numbered(11), PLAIN, share=Share(4), seed=1), 1)
    assert other[0]["index"].tolist() != batches[0]["index"].tolist()


def test_processes_share_the_batch_of_one_process():
    whole = take(TrainLoader(numbered(20), SHIFT, share=Share(6), seed=3), 5)
    parts = [take(TrainLoader(numbered(20), SHIFT, share=Share(6, 1, rank, 2), seed=3), 5) for rank in (0, 1)]
    joined = [{name: torch.cat([one[name], two[name]]) for name in one} for one, two in zip(*parts, strict=True)]
    assert_same(joined, whole)


@WORKERS
def test_loading_leaves_the_global_generator_alone(num_workers):
    before = torch.get_rng_state()
    take(TrainLoader(numbered(10), SHIFT, share=Share(3), seed=1, num_workers=num_workers), 2)
    list(evaluation_batches(numbered(4), PLAIN, batch_size=2, num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit the 10 images of numbered; choose a batch size from 1 to 10"):
        TrainLoader(numbered(10), PLAIN, share=Share(12, 1, 0, 2), seed=0)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            (10, 1, 0, 4),
            r"10 does not divide by 4 processes x 1 parts .*; choose a batch size of 8 or 12",
        ),
        (
            (10, 4, 0, 2),
            r"10 does not divide by 2 processes x 4 parts .*; choose a batch size of 8 or 16",
        ),
        ((3, 1, 0, 4), "choose a batch size of 4"),
        ((0, 1, 0, 1), "choose a batch size of 1"),
        ((4, 1, 2, 2), "rank must lie from 0 to 1, not 2"),
    ],
)
def test_an_invalid_share_is_refused_with_the_next_batch_sizes(numbers, message):
    with pytest.raises(ValueError, match=message):
        Share(*numbers)


@pytest.mark.parametrize("wrong", ["processes", "images"])
def test_errors_about_a_batch_name_settings_that_recipes_have(wrong):
    with pytest.raises(ValueError, match="choose a batch size") as error:
        Share(10, 1, 0, 4) if wrong == "processes" else TrainLoader(numbered(10), PLAIN, share=Share(12), seed=0)
    named_settings = re.findall(r"(\w+)\.batch_size", str(error.value))
    assert sorted(named_settings) == ["optim", "pretraining", "tokenizer_training"]
    for recipe in (named("smoke"), FINETUNES["small"]()):
        changes = [f"{part}.batch_size=8" for part in named_settings if hasattr(recipe, part)]
        assert changes
        assert override(recipe, changes) != recipe


def test_the_pieces_of_a_batch_cover_it_once():
    shares = [Share(24, 3, rank, 4) for rank in range(4)]
    rows = [row for share in shares for part in range(3) for row in share.rows(part)]
    assert sorted(rows) == list(range(24))


def test_accumulated_parts_give_the_batch_of_one():
    whole = take(TrainLoader(numbered(20), SHIFT, share=Share(6), seed=3), 5)
    parts = take(TrainLoader(numbered(20), SHIFT, share=Share(6, 3), seed=3), 15)
    joined = [
        {name: torch.cat([part[name] for part in parts[first : first + 3]]) for name in parts[0]}
        for first in range(0, 15, 3)
    ]
    assert_same(joined, whole)


def test_evaluation_batches_need_a_size():
    with pytest.raises(ValueError, match="batch size must be positive"):
        evaluation_batches(numbered(10), PLAIN, batch_size=0)


@WORKERS
def test_corrupt_files_are_replaced_in_training_noted_once_and_warned_about(tmp_path, caplog, num_workers):
    dataset = folder(tmp_path, 12, corrupt=(2, 7))
    loader = TrainLoader(dataset, PLAIN, share=Share(4), seed=0, num_workers=num_workers)
    with caplog.at_level(logging.WARNING):
        batches = take(loader, 9)
    bad = {str(tmp_path / "train/even/02.png"), str(tmp_path / "train/odd/07.png")}
    assert set(dataset.skipped) == bad
    assert len(dataset.skipped) == 2
    assert len(caplog.records) == 2
    for batch in batches:
        pixels = batch["images"][:, 0, 0, 0]
        assert len(batch["index"]) == len(set(batch["index"].tolist())) == 4
        assert not {2, 7} & set(pixels.tolist())
        assert batch["labels"].tolist() == (pixels % 2).tolist()
    again = TrainLoader(dataset, PLAIN, share=Share(4), seed=0, start=3)
    assert_same(take(again, 6), batches[3:])


@pytest.mark.parametrize("broken", [(4, 5, 8), (0, 1, 4), (4, 5, 6, 7)])
def test_of_many_unreadable_images_no_two_are_replaced_by_the_same(broken):
    """broken: places in the order of the epoch, of which step 1 has those from 4 to 7."""
    order = epoch_order(12, None, 0, 0)

    class Damaged(ArrayDataset):
        def load(self, index):
            if index in order[list(broken)].tolist():
                raise CorruptImage(str(index))
            return super().load(index)

    dataset = Damaged("damaged", numbered(12).array, None)
    steps = take(TrainLoader(dataset, PLAIN, share=Share(4), seed=0), 3)
    parts = take(TrainLoader(dataset, PLAIN, share=Share(4, 2), seed=0), 6)
    for step, batch in enumerate(steps):
        assert len(set(batch["index"].tolist())) == 4
        assert torch.equal(batch["index"], torch.cat([part["index"] for part in parts[2 * step : 2 * step + 2]]))


def test_a_long_list_of_unreadable_files_costs_no_more_for_each():
    class Gone(ArrayDataset):
        def load(self, index):
            raise CorruptImage(f"{index:06d}.png")

    class Counted(list):
        looked = 0

        def __contains__(self, path):
            Counted.looked += 1
            return super().__contains__(path)

    dataset = Gone("gone", torch.zeros(1000, 1, 8, 8, dtype=torch.uint8), None, skipped=Counted())
    for _ in range(2):
        with pytest.raises(NoneReadable):
            list(evaluation_batches(dataset, PLAIN))
    assert (len(dataset.skipped), Counted.looked) == (1000, 0)


def test_the_reason_is_told_of_images_that_are_too_large(tmp_path, caplog, monkeypatch):
    dataset = folder(tmp_path, 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    reason = r"its pixels are more than PIL\.Image\.MAX_IMAGE_PIXELS, 30"
    with pytest.raises(ValueError, match=rf"^none of the 4 images of .* could be read \({reason}\)$"):
        list(evaluation_batches(dataset, PLAIN))
    assert re.search(rf"skipping \S*00\.png: it cannot be read as an image \({reason}\)", caplog.text)


@WORKERS
def test_evaluation_goes_through_all_readable_images_in_order(tmp_path, num_workers):
    dataset = folder(tmp_path, 11, corrupt=(4,))
    batches = list(evaluation_batches(dataset, PLAIN, batch_size=3, num_workers=num_workers))
    pixels = torch.cat([batch["images"][:, 0, 0, 0] for batch in batches])
    assert pixels.tolist() == [0, 2, 6, 8, 10, 1, 3, 5, 7, 9]
    assert torch.cat([batch["index"] for batch in batches]).tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == [0] * 5 + [1] * 5
    assert dataset.skipped == [str(tmp_path / "train/even/04.png")]


@WORKERS
@pytest.mark.parametrize("kind", [ValueError, OSError])
def test_an_error_of_the_user_in_a_worker_process_stays_one_sentence(kind, num_workers):
    class Refusing(ArrayDataset):
        def load(self, index):
            raise kind("the disk is full")

    dataset = Refusing("refusing", torch.zeros(4, 1, 8, 8, dtype=torch.uint8), None)
    with pytest.raises(kind, match=r"^the disk is full$"):
        list(evaluation_batches(dataset, PLAIN, num_workers=num_workers))


@WORKERS
def test_a_data_set_without_a_readable_file_is_one_sentence(tmp_path, num_workers):
    dataset = folder(tmp_path, 4, corrupt=(0, 1, 2, 3))
    for read in (
        lambda: next(iter(TrainLoader(dataset, PLAIN, share=Share(2), seed=0, num_workers=num_workers))),
        lambda: list(evaluation_batches(dataset, PLAIN, num_workers=num_workers)),
        lambda: decode_to_memory(dataset),
    ):
        with pytest.raises(
            ValueError, match=r"^none of the 4 images of .* could be read \(damaged, or of a format that .*\)$"
        ):
            read()


def test_a_folder_that_fits_is_decoded_once_without_its_corrupt_files(tmp_path):
    dataset = folder(tmp_path, 6, corrupt=(2,))
    memory = decode_to_memory(dataset)
    assert isinstance(memory, ArrayDataset)
    assert memory.array[:, 0, 0, 0].tolist() == [0, 4, 1, 3, 5]
    assert memory.labels.tolist() == [0, 0, 1, 1, 1]
    assert (memory.class_names, memory.name) == (("even", "odd"), dataset.name)
    assert memory.skipped == dataset.skipped == [str(tmp_path / "train/even/02.png")]
    assert decode_to_memory(memory) is memory


def test_a_folder_that_does_not_fit_or_has_several_sizes_stays_on_disk(tmp_path):
    dataset = folder(tmp_path, 6)
    assert decode_to_memory(dataset, 6 * 64 - 1) is dataset
    assert decode_to_memory(dataset, 6 * 64) is not dataset
    Image.new("L", (9, 8)).save(tmp_path / "train/odd/05.png")
    assert decode_to_memory(dataset) is dataset
