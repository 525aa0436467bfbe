"""Each script under examples/ runs from start to end, on next to nothing."""

import importlib.util
import json
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mage
from mage.store.example_images import read_examples

ROOT = Path(__file__).resolve().parents[2]


def loaded(name: str) -> Any:
    """The example's module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples import one another, as scripts of one folder do."""
    monkeypatch.syspath_prepend(ROOT / "examples")


def test_ngrams_reach_the_entropy_of_what_they_can_see() -> None:
    random = np.random.default_rng(0)
    ngrams = loaded("ngrams").Ngrams
    fair = random.integers(4, size=(2000, 16))
    assert ngrams(fair[:1000], 4, 0).bits_per_token(fair[1000:]) == pytest.approx(2, abs=0.01)
    assert ngrams(fair[:1000], 4, 2).bits_per_token(fair[1000:]) == pytest.approx(2, abs=0.05)
    start = random.integers(4, size=(500, 2))
    sums = list(start.T)
    while len(sums) < 16:
        sums.append((sums[-1] + sums[-2]) % 4)
    periodic = np.stack(sums, axis=1)  # a token is the sum of two before it: an order of 2 needs 4 bits for 16 tokens
    assert ngrams(periodic[:400], 4, 2).bits_per_token(periodic[400:]) == pytest.approx(4 / 16, abs=0.05)
    assert ngrams(periodic[:400], 4, 1).bits_per_token(periodic[400:]) > 1.5
    for table in ngrams(fair[:5], 4, 2).tables:
        assert table.sum(axis=-1) == pytest.approx(1), "probabilities"


def test_characters_of_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = loaded("characters")
    text = "the quick brown fox jumps over the lazy dog\n" * 240
    (tmp_path / "text.txt").write_text(text + "\u00e9")
    assert example.text_of(example.torch.from_numpy(example.sequences(text)[0])) == text[:64].replace("\n", "\u23ce")
    results = example.measure([str(tmp_path / "text.txt")], tmp_path / "out", 2)
    assert 0 < results["text.order_2"] < 1 < results["text.order_0"] < results["text.chance"]
    assert results["text.bits_per_character"] == pytest.approx(results["text.chance"], abs=1), "two steps teach little"
    (tmp_path / "other.txt").write_text(text.replace("fox", "cat"))
    with pytest.raises(ValueError, match="holds other tokens; choose another folder"):
        example.measure([str(tmp_path / "other.txt")], tmp_path / "out", 2)
    example.show(tmp_path / "out")
    printed = capsys.readouterr().out
    assert printed.count("given ") == 8
    filled = [line[8:] for line in printed.splitlines() if line.startswith("filled")]
    assert all(len(line) == 64 and set(line) <= set(string.printable) | {"\u23ce"} for line in filled)


def sweeps(folder: Path) -> None:
    """Twenty recordings of a voice-like sound, overtones and noise, that rises or falls."""
    spectrograms = loaded("spectrograms")
    folder.mkdir()
    time = torch.arange(spectrograms.RATE * 3) / spectrograms.RATE
    for number in range(20):
        turns = (300 + (number - 9.5) * time) * time
        tone = torch.stack([torch.sin(2 * torch.pi * overtone * turns) for overtone in range(1, 12)]).sum(dim=0)
        noise = torch.randn(time.shape, generator=torch.Generator().manual_seed(number))
        spectrograms.write_wave(folder / f"{number:02d}.wav", tone + 0.2 * noise)


def test_a_spectrogram_shows_a_tone_where_it_is_and_can_be_heard_again() -> None:
    example = loaded("spectrograms")
    time = torch.arange(example.RATE * 2) / example.RATE
    rows = []
    for hertz in (400, 1000, 3000):
        picture = example.spectrogram(torch.sin(2 * torch.pi * hertz * time))
        loudest = picture[:, 10:-10].mean(dim=1).argmax()
        band = example.filters()[example.BANDS - 1 - loudest]
        assert abs(float(band.argmax()) * example.RATE / example.WINDOW - hertz) < 60
        rows.append(int(loudest))
        heard = example.spectrogram(example.sound_of(picture[:, :64]))
        assert heard[:, 10:-10].mean(dim=1).argmax() == loudest
    assert rows == sorted(rows, reverse=True), "low tones are at the bottom"
    assert example.spectrogram(torch.zeros(8000)).shape == (64, 0)


def test_speech(tmp_path: Path) -> None:
    sweeps(tmp_path / "waves")
    example = loaded("speech")
    results = example.measure(tmp_path / "waves", tmp_path / "out", 2)
    assert results["audio.clips"] == 4, "every tenth recording, without overlap"
    assert results["audio.bits_chance"] == 9
    assert results["audio.gap_decibels_straight_line"] < results["audio.gap_decibels_mean_spectrum"], "tones go on"
    names = {path.stem for path in (tmp_path / "out").glob("*.wav")}
    assert names == {"recording", "gap", "straight-line", "filled"}
    again = example.measure(tmp_path / "waves", tmp_path / "out", 2)
    assert again == results, "what is trained is used again"
    (tmp_path / "waves" / "00.wav").unlink()
    with pytest.raises(ValueError, match="was made of other inputs"):
        example.measure(tmp_path / "waves", tmp_path / "out", 2)
    (tmp_path / "silent").mkdir()
    with pytest.raises(ValueError, match=r"no \.wav files"):
        example.write_pictures(tmp_path / "silent", tmp_path / "none")
    loaded("spectrograms").write_wave(tmp_path / "silent" / "silence.wav", torch.zeros(16000))
    with pytest.raises(ValueError, match="or silent"):
        example.trained(tmp_path / "silent", tmp_path / "none", 2)
    assert not list((tmp_path / "none").glob("*")), "half of the pictures would be taken for all"


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


@pytest.fixture(scope="module")
def digits_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged digits, exported by the command in a process of its own: in this one shapes are checked."""
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("export") / "digits"
    words = [sys.executable, "-m", "mage", "export", "--model", "digits", "--onnx", str(out), "--json"]
    words += ["--parts", "decode", "logits"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)["onnx"]["largest_difference"].values()) < 1e-4
    return out


@pytest.mark.parametrize(
    "guided",
    [
        {},
        {"guidance": 3.0, "guidance_schedule": "constant"},
        {"guidance": 3.0, "guidance_schedule": "interval", "guidance_interval": (0.2, 0.6)},
    ],
)
def test_images_from_onnx_files_are_those_of_the_model(digits_onnx: Path, guided: dict[str, Any]) -> None:
    certain = {"token_temperature": 0.0, "choice_temperature": 0.0, **guided}  # nothing is drawn at random
    model = mage.load("digits", precision="float32", device="cpu")
    expected = model.generate(3, classes=7, **certain, order="confidence", encoder_keep=1.0, revisions=0)  # type: ignore[arg-type]
    made = loaded("generate_onnx").generate(digits_onnx, 3, label=7, **certain)
    assert made.shape == (3, 1, 28, 28)
    assert torch.allclose(torch.from_numpy(made), expected, atol=1e-4)


def test_the_sampler_of_onnx_files_takes_no_temperature_of_another_order_and_no_other_number_of_steps() -> None:
    sampler = loaded("generate_onnx").sampler
    own = {"order": "halton", "choice_temperature": 24.0, "steps": 20}
    assert sampler(own, {})["choice_temperature"] == 6.0
    assert sampler(own, {"choice_temperature": 9.0})["choice_temperature"] == 9.0
    assert sampler(own | {"order": "confidence"}, {"steps": 20})["choice_temperature"] == 24.0
    with pytest.raises(ValueError, match="in place of steps give still_unknown"):
        sampler(own, {"steps": 8})


def test_images_from_onnx_files_are_of_the_class_and_differ(digits_onnx: Path) -> None:
    example = loaded("generate_onnx")
    made = example.generate(digits_onnx, 16, label=0)
    assert len(np.unique(made.reshape(16, -1), axis=0)) == 16
    model = mage.load("digits", precision="float32", device="cpu")
    real, labels = read_examples("digits")
    nearest = torch.cdist(model.features(torch.from_numpy(made)), model.features(real)).argmin(dim=1)
    assert sum(labels[index] == "0" for index in nearest.tolist()) > 12
    assert (example.generate(digits_onnx, 2, seed=1) != example.generate(digits_onnx, 2, seed=2)).any()
    example.main(digits_onnx, 3)
    with Image.open(digits_onnx / "samples.ppm") as picture:
        assert picture.size == (8 * 28, 28)


def test_a_loop_of_ones_own_learns(capsys: pytest.CaptureFixture[str]) -> None:
    model = loaded("own_loop").main(steps=60)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 10
    assert losses[-1] < losses[0] - 0.2
    assert model.generate(2, steps=2).shape == (2, 1, 28, 28)
