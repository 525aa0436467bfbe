"""Each script under examples/ runs from start to end, on next to nothing."""

import importlib.util
import string
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def loaded(name: str) -> Any:
    """The example's module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_characters_of_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = loaded("characters")
    text = "the quick brown fox jumps over the lazy dog\n" * 240
    (tmp_path / "text.txt").write_text(text + "\u00e9")
    assert example.text_of(example.torch.from_numpy(example.sequences(text)[0])) == text[:64].replace("\n", "\u23ce")
    example.main([str(tmp_path / "text.txt")], tmp_path / "out", steps=2)
    printed = capsys.readouterr().out
    assert printed.count("given ") == 8
    filled = [line[8:] for line in printed.splitlines() if line.startswith("filled")]
    assert all(len(line) == 64 and set(line) <= set(string.printable) | {"\u23ce"} for line in filled)


def test_clips_of_moving_squares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = loaded("clips")
    clips = torch.from_numpy(example.moving_squares())
    assert clips.shape == (256, 4, 4, 4)
    assert len(clips.unique(dim=0)) == 256, "what is held out is nowhere in training"
    assert ((clips > 0).flatten(2).sum(dim=2) == 4).all(), "one square in every frame"
    for clip in clips[:50]:
        moves = [(-1, 0), (1, 0), (0, -1), (0, 1)]
        same = [
            move
            for move in moves
            if all(torch.equal(clip[time].roll(move, (0, 1)), clip[time + 1]) for time in range(3))
        ]
        assert len(same) == 1, "it moves straight on"
    assert example.accuracy(clips, clips) == 1
    known, unknown = clips.clone(), clips.clone()
    known[:, :2] = 0
    unknown[:, 2:] = 0
    assert example.accuracy(known, clips) == 1, "the first half does not count"
    assert example.accuracy(unknown, clips) == 0, "nor does the ground"
    example.main(tmp_path / "out", steps=2)
    names, numbers = zip(*(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()), strict=True)
    assert names == ("drawn", "last frame repeated", "another clip (chance)")
    assert all(0 <= float(number) < 0.3 for number in numbers)
