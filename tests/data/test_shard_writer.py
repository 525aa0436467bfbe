"""Writing shards: the same bytes each time, also after a stop; nothing lost, nothing twice."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mage import atomic, images, runs
from mage.data.datasets import ArrayDataset, load_dataset
from mage.data.shard_writer import JOURNAL, parse_bytes, write_shards


def photos(folder: Path, count: int = 30) -> Path:
    """JPEG and PNG files in two class folders, all different, and one that is no image."""
    for number in range(count):
        path = folder / ("cat", "dog")[number % 2] / f"{number:02d}.{('jpg', 'png')[number % 3 == 0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    (folder / "cat" / "broken.jpg").write_text("no image")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar*"))}


def test_files_are_copied_as_they_are_with_class_and_name_in_a_random_order(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    written = runs.shards(folder, tmp_path / "out", most_bytes=20_000)[""]
    assert (written.images, written.complete) == (30, True)
    assert written.skipped == (str(folder / "cat" / "broken.jpg"),)
    assert all((tmp_path / "out" / name).stat().st_size <= 20_480 for name in written.shards)
    whole, there = load_dataset(folder, split="all"), load_dataset(tmp_path / "out", split="all")
    assert (len(there), there.class_names) == (30, ("cat", "dog"))
    labels = np.bincount(there.labels[:10], minlength=2)
    assert labels.min() >= 2, "the first shard holds both classes"
    for index in range(30):
        number = int(there.file_name(index).rpartition("/")[2].partition(".")[0])
        assert there.file_bytes(index) == (folder / whole.names()[number]).read_bytes()
        assert there.labels[index] == whole.labels[number]


def test_shards_of_files_that_have_changed_are_not_taken_for_those_of_today(tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    runs.shards(folder, out)
    assert runs.shards(folder, out)[""].images == 30
    Image.new("RGB", (8, 8)).save(folder / "cat" / "broken.jpg")
    with pytest.raises(ValueError, match="whose files have changed since"):
        runs.shards(folder, out)
    facts = json.loads((out / JOURNAL).read_text())
    (out / JOURNAL).write_text(json.dumps({name: fact for name, fact in facts.items() if name != "sizes"}))
    assert runs.shards(folder, out)[""].images == 30, "of an earlier version, which kept none"


def test_images_of_a_third_split_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "val", "test"):
        photos(tmp_path / "photos" / split, 4)
    written = runs.shards(tmp_path / "photos", tmp_path / "out")
    assert set(written) == {"train", "test"}
    assert "5 images of" in caplog.text, "four and the broken one"
    assert "are not written" in caplog.text


def test_images_without_files_become_png_and_splits_become_folders(tmp_path: Path) -> None:
    written = runs.shards("digits", tmp_path / "out")
    assert {split: part.images for split, part in written.items()} == {"train": 1500, "test": 297}
    for split in ("train", "test"):
        own, there = (load_dataset(name, split=split, channels=1) for name in ("digits", tmp_path / "out"))
        number = int(there.file_name(7).rpartition("/")[2].partition(".")[0])
        assert torch.equal(there.load(7), own.load(number))
        assert there.labels[7] == own.labels[number]
        assert there.class_names == own.class_names
    again = runs.shards(tmp_path / "out", tmp_path / "again", most_bytes=100_000)
    assert {split: part.images for split, part in again.items()} == {"train": 1500, "test": 297}


KILLED = """
import os, sys
from pathlib import Path
from mage import atomic, runs
from mage.data import shard_writer
write, calls = shard_writer.write_shard, []
def stopping(path, files):
    calls.append(path)
    if len(calls) == int(sys.argv[3]):
        path.with_name(f".{path.name}.{atomic.HOST}-{os.getpid()}-0.tmp").write_bytes(b"half")
        os.kill(os.getpid(), 9)
    write(path, files)
shard_writer.write_shard = stopping
runs.shards(sys.argv[1], sys.argv[2], most_bytes=20_000)
"""


@pytest.mark.parametrize("killed_at", [1, 3])
def test_a_killed_call_goes_on_and_gives_the_bytes_of_an_undisturbed_one(tmp_path: Path, killed_at: int) -> None:
    folder = photos(tmp_path / "photos")
    words = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "x" / "out"), str(killed_at)]
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run(words, env=os.environ | {"PYTHONPATH": str(root)}, check=False).returncode == -9
    journal = tmp_path / "x" / "out" / JOURNAL
    assert journal.exists() == (killed_at > 1)
    assert killed_at == 1 or json.loads(journal.read_text())["complete"] is False
    alive = tmp_path / "x" / "out" / f".out-000009.tar.{atomic.HOST}-1-0.tmp"
    alive.write_bytes(b"of another process")
    done: list[int] = []
    written = runs.shards(folder, tmp_path / "x" / "out", most_bytes=20_000, on_images=done.append)[""]
    assert [*(tmp_path / "x" / "out").glob(".*.tmp")] == [alive], "nothing half-written of the dead process is left"
    alive.unlink()
    assert (done[0] > 1) == (killed_at == 3), "two shards were there"
    assert sum(done) == 31
    whole = runs.shards(folder, tmp_path / "y" / "out", most_bytes=20_000)[""]
    assert hashes(tmp_path / "x" / "out") == hashes(tmp_path / "y" / "out")
    assert written == whole
    assert runs.shards(folder, tmp_path / "x" / "out", most_bytes=20_000)[""] == whole, "and again, at no cost"


def test_other_images_sizes_and_seeds_need_another_folder(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", count=4)
    runs.shards(folder, tmp_path / "out", most_bytes=20_000)
    with pytest.raises(ValueError, match=r"holds shards with most_bytes 20000, not 30000"):
        runs.shards(folder, tmp_path / "out", most_bytes=30_000)
    with pytest.raises(ValueError, match=r"holds shards with seed 0, not 1"):
        runs.shards(folder, tmp_path / "out", most_bytes=20_000, seed=1)
    with pytest.raises(ValueError, match=r"is not empty, and holds no shards\.json"):
        runs.shards(folder, folder, most_bytes=20_000)
    with pytest.raises(ValueError, match="is a file: choose a folder"):
        runs.shards(folder, folder / "cat" / "broken.jpg", most_bytes=20_000)


def test_one_process_at_a_time_writes_shards_into_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos(tmp_path / "photos", count=4)
    code = "import sys, time; from mage import locks; from pathlib import Path\n"
    code += "with locks.run_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"process {other.pid}"):
            runs.shards(folder, tmp_path / "out", most_bytes=20_000)
    finally:
        other.kill()
        other.communicate()
    assert runs.shards(folder, tmp_path / "out", most_bytes=20_000)[""].complete
    (tmp_path / "out" / "out-000000.tar").unlink()
    with pytest.raises(ValueError, match=r"lacks out-000000\.tar, which shards\.json lists"):
        runs.shards(folder, tmp_path / "out", most_bytes=20_000)
    (tmp_path / "out" / JOURNAL).write_text("[1")
    with pytest.raises(ValueError, match="is damaged"):
        runs.shards(folder, tmp_path / "out", most_bytes=20_000)


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("no image")
    with pytest.raises(ValueError, match="none of the 1 images of bad-"):
        runs.shards(tmp_path / "bad", tmp_path / "out")
    with pytest.raises(ValueError, match="a shard of 10 bytes is too small"):
        runs.shards("digits", tmp_path / "out", most_bytes=10)
    bands = ArrayDataset("bands", torch.zeros(2, 5, 4, 4, dtype=torch.uint8), None)
    with pytest.raises(ValueError, match="images of 5 channels are no PNG"):
        write_shards(bands, tmp_path / "out2", prefix="x", most_bytes=20_000)


def test_an_image_larger_than_a_shard_has_one_of_its_own(tmp_path: Path) -> None:
    for number in range(3):
        noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(number))
        images.save_png(tmp_path / "photos" / f"{number}.png", noise)
    written = runs.shards(tmp_path / "photos", tmp_path / "out", most_bytes=10_000)[""]
    assert (len(written.shards), written.images) == (3, 3)


def test_sizes_have_units() -> None:
    assert [parse_bytes(text) for text in ("500MB", "1.5 GB", "64MiB", "20000", "7kB")] == [
        500_000_000, 1_500_000_000, 2**26, 20_000, 7000,
    ]  # fmt: skip
    for wrong in ("", "MB", "5 TB", "-5MB", "1e9", "5 m", "9" * 30):
        with pytest.raises(ValueError, match="write a number and a unit, such as 500MB"):
            parse_bytes(wrong)
