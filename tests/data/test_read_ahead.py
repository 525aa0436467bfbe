"""Reading ahead: in order, each image once, in threads only where reading takes long and several may read."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mage.data import read_ahead as module
from mage.data.datasets import CorruptImage, Subset
from mage.data.image_sets import ArrayDataset, HasFiles
from mage.data.loaders import evaluation_batches
from mage.data.read_ahead import read_ahead
from mage.data.transforms import TransformConfig, build_transform


class Files:
    """Thirty image files, number 7 of which is damaged; who read which is noted."""

    name, class_names, labels, channels = "files", (), None, 1

    def __init__(self) -> None:
        self.skipped: list[str] = []
        self.read: list[tuple[int, bool]] = []

    def __len__(self) -> int:
        return 30

    def file_bytes(self, index: int) -> bytes:
        return b""

    def load(self, index: int) -> Tensor:
        self.read.append((index, threading.current_thread() is threading.main_thread()))
        if index == 7:
            raise CorruptImage("7.png")
        return torch.full((1, 4, 4), index, dtype=torch.uint8)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A clock that every reading advances by `step`, on a machine of four cores."""
    now = SimpleNamespace(time=0.0, step=0.0)

    def perf_counter() -> float:
        now.time += now.step
        return float(now.time)

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=perf_counter))
    monkeypatch.setattr(module, "_cores", lambda: 4)
    return now


@pytest.mark.parametrize("slow", [False, True])
def test_files_that_take_long_are_read_by_threads_in_order(clock: SimpleNamespace, slow: bool) -> None:
    files, clock.step = Files(), 0.01 if slow else 0.0001
    assert isinstance(files, HasFiles)
    order = [*range(5, 20), 2, 29]
    with read_ahead(files, order) as load:
        for index in order:
            if index == 7:
                with pytest.raises(CorruptImage):
                    load(index)
            else:
                assert int(load(index)[0, 0, 0]) == index
    assert sorted(index for index, _ in files.read) == sorted(order), "each once"
    by_main = [index for index, main in files.read if main]
    assert by_main == ([5] if slow else order), "the first one tells how long it takes"


def test_large_images_are_not_kept_by_the_dozen(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    files, clock.step = Files(), 0.01
    size = files.load(0).nbytes
    files.read.clear()
    monkeypatch.setattr(module, "MOST_BYTES", 3 * size)
    order = [index for index in range(30) if index != 7]
    with read_ahead(files, order) as load:
        for count, index in enumerate(order, 1):
            load(index)
            assert len(files.read) <= count + 3


def test_batches_do_not_depend_on_who_reads(clock: SimpleNamespace) -> None:
    found: list[list[dict[str, Tensor]]] = []
    settings: list[dict[str, Any]] = [{"threads": 3}, {}, {"threads": 1}]
    for step, more in zip((0.0001, 0.01, 0.0001), settings, strict=True):
        files, clock.step = Files(), step
        batches = evaluation_batches(files, build_transform(TransformConfig(size=(4, 4))), batch_size=8, **more)
        found.append(list(batches))
        assert files.skipped == ["7.png"]
        assert any(not main for _, main in files.read), "all three read in threads"
    for one, other in zip(found[0], found[1], strict=True):
        assert torch.equal(one["images"], other["images"])
        assert torch.equal(one["index"], other["index"])
    assert torch.equal(torch.cat([batch["index"] for batch in found[2]]), torch.tensor([*range(7), *range(8, 30)]))


def test_only_what_several_may_read_is_read_by_several(clock: SimpleNamespace) -> None:
    """Parts of data sets of files are files, too; rows of somebody's table are asked for by one thread."""
    clock.step = 0.01
    files = Files()
    with read_ahead(Subset(files, [3, 4, 5]), range(3)) as load:
        assert [int(load(index)[0, 0, 0]) for index in range(3)] == [3, 4, 5]
    assert {main for _, main in files.read} == {True, False}
    array = ArrayDataset("array", torch.zeros(3, 1, 4, 4, dtype=torch.uint8), None, ())
    with read_ahead(array, range(3)) as load:
        assert load == array.load
