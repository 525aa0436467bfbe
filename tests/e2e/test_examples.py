"""Each script under examples/ runs from start to end, on next to nothing."""

import importlib.util
import string
from pathlib import Path
from typing import Any

import pytest

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
