"""What the command line makes of devices that this machine need not have."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mage import device
from mage.cli.main import main


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """`mage generate` on a machine with a GPU, up to the work itself: the options that it got."""
    got: list[Any] = []
    monkeypatch.setattr(device, "start", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr("mage.cli.generate.run", got.append)
    return got


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "cuda:0"),
        (["--processes", "4"], "auto"),
        (["--processes", "4", "--device", "cuda"], "cuda"),
        (["--processes", "4", "--device", "cuda:1"], "cuda:1"),
    ],
    ids=str,
)
def test_several_processes_may_use_all_gpus(
    one_gpu: list[Any], words: list[str], expected: str, tmp_path: Path
) -> None:
    main(["generate", "--model", "digits", "--num", "8", "--out", str(tmp_path / "out"), *words])
    assert one_gpu[0].device == expected


def test_a_full_gpu_is_one_sentence_with_advice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(options: Any) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."
        )

    monkeypatch.setattr("mage.cli.generate.run", full)
    with pytest.raises(SystemExit) as stop:
        main(["generate", "--model", "digits", "--num", "8", "--device", "cpu", "--out", str(tmp_path / "out")])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "mage generate: error: CUDA out of memory: take fewer images at a time" in said
