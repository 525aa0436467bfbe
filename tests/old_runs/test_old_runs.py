"""Runs of every earlier version load, compute what they computed, and resume; make.py makes the files of a version."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import mage
from mage.cli.main import main
from mage.data.token_cache import TokenCache
from mage.runs import load_tokenizer
from mage.training.checkpoint import newest_checkpoint
from mage.training.runlog import read_log

HERE = Path(__file__).resolve().parent
VERSIONS = sorted(path.parent.name for path in HERE.glob("*/computed.json"))
QUIET = ("--device", "cpu", "--precision", "float32", "--json")
MOST_BYTES = 1_500_000


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a version's files, which may be written to."""
    return Path(shutil.copytree(HERE / request.param, tmp_path / request.param))


def computed(version: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((version / "computed.json").read_text())
    return values


def test_there_are_runs_of_the_first_release_and_they_are_small() -> None:
    assert "0.1" in VERSIONS
    assert sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file()) < MOST_BYTES


@pytest.mark.parametrize("place", ["run", "run/model"])
def test_a_model_computes_what_it_computed(version: Path, place: str) -> None:
    model, expected = mage.load(version / place, device="cpu", precision="float32"), computed(version)
    image = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    assert model.features(image)[0].tolist() == pytest.approx(expected["features"], rel=1e-4, abs=1e-5)
    restored = model.tokenizer.decode(model.tokenizer.encode(image))[0, 0]
    torch.testing.assert_close(restored, torch.tensor(expected["reconstruction"]), atol=1e-5, rtol=1e-4)
    made = model.generate(2, seed=0, steps=2)
    assert made.shape == (2, 1, 8, 8)
    assert made.isfinite().all()


def test_a_tokenizer_and_its_cache_belong_together(version: Path) -> None:
    tokenizer, cache = load_tokenizer(version / "tokenizer", device="cpu"), TokenCache(version / "tokens")
    assert len(cache) >= 1425
    assert tokenizer.transformer is None
    assert cache.num_codes == tokenizer.tokenizer.num_codes


def test_a_run_resumes_with_the_settings_it_had_and_no_others(
    version: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = version / "run"
    words = ["--config", str(run / "recipe.yaml"), "--tokenizer", str(version / "tokenizer"), "--data"]
    words += [str(version / "tokens"), "--out", str(run), "--resume", "--set", "pretraining.steps=9", *QUIET]
    with pytest.raises(SystemExit):
        main(["pretrain", *words, "--set", "method.masking.low=0.4"])
    assert "method.masking.low: 0.5 is not 0.4" in capsys.readouterr().err
    main(["pretrain", *words])
    newest = newest_checkpoint(run)
    assert newest is not None
    assert newest.name == "step-000000009.pt"
    assert [line["step"] for line in read_log(run) if "loss" in line] == [3, 6, 9]
    assert mage.load(run, device="cpu").generate(1, steps=1).isfinite().all()
