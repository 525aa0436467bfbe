"""Commands that are terminated, killed, disturbed by others or short of disk: one sentence, and nothing is lost."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mage import images, locks
from mage.data.tar_images import open_shards

Command = Callable[..., SimpleNamespace]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Callable[[Path], int]]:
    """Starts a process that holds a lock file; its number."""
    children: list[int] = []

    def start(path: Path) -> int:
        child = os.fork()
        if child == 0:
            with locks.held(path, path.parent):
                (tmp_path / "held").touch()
                time.sleep(60)
                os._exit(0)
        children.append(child)
        while not (tmp_path / "held").exists():
            time.sleep(0.01)
        (tmp_path / "held").unlink()
        return child

    yield start
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """A disk on which no file may be longer than 100 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def generate(disk: SimpleNamespace, out: Path, *more: str) -> list[object]:
    return ["generate", "--model", disk.root / "model", "--num", "8", "--batch-size", "2", "--out", out, *more]


def test_sigterm_ends_a_command_like_ctrl_c_and_it_goes_on(
    disk: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    """As batch systems and containers end a process: the unit that is begun is finished, locks are removed."""
    out = tmp_path / "images"
    words = [str(word) for word in generate(disk, out)]
    words[words.index("8")] = "100000"
    process = subprocess.Popen([sys.executable, "-m", "mage", *words], stderr=subprocess.PIPE, text=True)
    while not (out / "000003.png").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.rstrip().endswith("mage generate: stopped")
    assert "Traceback" not in err
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert command(*generate(disk, out)).code == 0


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "--model", "{disk}/model", "--num", "4", "--out", "{out}/images"),
        ("tokenize", "--tokenizer", "{disk}/model", "--out", "{out}/tokens"),
        ("embed", "{disk}/folder", "--model", "{disk}/model", "--out", "{out}/table.csv"),
        ("pretrain", "--tokenizer", "{disk}/model", "--data", "{disk}/tokens", "--out", "{out}/run"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_full_disk_is_one_sentence(
    disk: SimpleNamespace, command: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = command(*(word.format(disk=disk.root, out=tmp_path) for word in arguments))
    assert done.code == 2
    assert f"mage {arguments[0]}: error: the disk is full: {tmp_path}" in done.err
    assert "Traceback" not in done.err
    assert not [path.name for path in tmp_path.rglob(".*")]


def test_a_folder_that_cannot_be_written_is_one_sentence(
    disk: SimpleNamespace, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as root, whom no permission stops: the system's answer is made up."""
    opening = os.open

    def refuses(path: object, flags: int, *more: object, **others: object) -> int:
        if str(tmp_path) in str(path) and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return opening(path, flags, *more, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuses)
    done = command(*generate(disk, tmp_path / "images"))
    assert done.code == 2
    assert done.err.startswith(f"mage generate: error: {tmp_path / 'images'} cannot be written: permission denied")


def test_two_commands_in_one_folder_are_told_apart(
    disk: SimpleNamespace, command: Command, tmp_path: Path, held: Callable[[Path], int]
) -> None:
    out = tmp_path / "images"
    pid = held(out / ".part-0-of-1.lock")
    for more in ((), ("--overwrite",)):
        done = command(*generate(disk, out, *more))
        assert done.code == 2
        assert f"{out} is in use by process {pid} on " in done.err
    assert command(*generate(disk, out, "--part", "1", "2")).code == 0, "another part is another matter"
    pid = held(tmp_path / "run" / ".lock")
    words = ("pretrain", "--tokenizer", disk.root / "model", "--data", disk.root / "tokens", "--out", tmp_path / "run")
    done = command(*words)
    assert f"{tmp_path / 'run'} is in use by process {pid} on " in done.err
    pid = held(tmp_path / ".table.csv.lock")
    done = command("embed", disk.root / "folder", "--model", disk.root / "model", "--out", tmp_path / "table.csv")
    assert f"{tmp_path / 'table.csv'} is in use by process {pid} on " in done.err
    pid = held(tmp_path / "demo" / ".lock")
    done = command("demo", "--minutes", "0", "--out", tmp_path / "demo")
    assert f"{tmp_path / 'demo'} is in use by process {pid} on " in done.err
    assert list((tmp_path / "demo").iterdir()) == [tmp_path / "demo" / ".lock"], "nothing was shown there"


def test_a_damaged_shard_of_images_is_made_again(
    disk: SimpleNamespace, command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = generate(disk, tmp_path / "shards", "--to", "tar", "--shard-size", "4")
    command(*words)
    shard = tmp_path / "shards" / "000004.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + b"\xff" * 100 + whole[200:])
    assert command(*words).code == 0
    assert "000004.tar is no tar, or damaged at byte 0: it is made again" in caplog.text
    assert shard.read_bytes() == whole
    assert len(open_shards(tmp_path / "shards")) == 8


def test_settings_of_generated_images_that_were_changed_are_not_believed(
    disk: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    command(*generate(disk, tmp_path / "images"))
    settings = tmp_path / "images" / "settings.json"
    settings.write_text(settings.read_text().replace('"rounding": "nearest"', '"rounding": "nearesu"'))
    done = command(*generate(disk, tmp_path / "images"))
    assert done.code == 2
    assert "settings.json is damaged" in done.err
    assert command(*generate(disk, tmp_path / "images", "--overwrite")).code == 0


def test_damaged_rows_of_an_unfinished_table_are_computed_again(
    disk: SimpleNamespace,
    command: Command,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("embed", disk.root / "folder", "--model", disk.root / "model", "--batch-size", "8", "--out")
    command(*words, tmp_path / "whole.npz")
    monkeypatch.setattr("mage.runs.rows.PIECE_ROWS", 8)
    with monkeypatch.context() as patch:
        patch.setattr("mage.runs.rows._Pieces.join", lambda *arguments: os.kill(os.getpid(), signal.SIGINT))
        assert command(*words, tmp_path / "cut.npz").code == 130
    piece = tmp_path / "cut.npz.parts" / "piece-000001.npz"
    data = bytearray(piece.read_bytes())
    data[len(data) // 2] ^= 1
    piece.write_bytes(data)
    done = command(*words, tmp_path / "cut.npz", "--json")
    assert json.loads(done.out)["computed"] == 8
    assert "piece-000001.npz was damaged: its rows are computed again" in caplog.text
    whole, cut = (np.load(tmp_path / f"{name}.npz") for name in ("whole", "cut"))
    for name in whole.files:
        assert np.array_equal(whole[name], cut[name])


def test_an_image_damaged_in_any_place_is_skipped_or_read(
    disk: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    for number in range(24):
        path = tmp_path / "photos" / f"{number:02d}.png"
        images.save_png(path, images.to_float(images.load_image(disk.root / "folder" / "a" / "0.png", 1)))
        data = bytearray(path.read_bytes())
        data[number * len(data) // 24] ^= 0x55
        path.write_bytes(data if number % 2 else data[: number * len(data) // 24])
    words = ("embed", tmp_path / "photos", "--model", disk.root / "model", "--json", "--out", tmp_path / "table.csv")
    done = command(*words)
    told = json.loads(done.out)
    assert told["images"] + len(told["skipped"]) == 24
    assert len(told["skipped"]) >= 12, "those that were cut"
