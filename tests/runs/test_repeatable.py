"""What is equal to the last bit, and what to rounding (docs/determinism.md): a repeated run, threads, batches."""

from pathlib import Path

import pytest
import torch

import mage
from mage import runs
from mage.device import repeatable
from mage.recipes import named
from mage.runs import Launch
from mage.settings import override
from mage.training.engine import Trainer
from mage.training.runlog import read_log
from tests.reference.launches import quiet

ON_CPU = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> mage.Mage:
    folder = tmp_path_factory.mktemp("tokenizer")
    runs.train_tokenizer(named("smoke"), quiet(folder, deterministic=True, **ON_CPU))
    return runs.load_tokenizer(folder, **ON_CPU)


def weights(launch: Launch, tokenizer: mage.Mage) -> torch.Tensor:
    """All weights of a short pre-training in one row."""
    runs.pretrain(override(named("smoke"), ["pretraining.steps=4", "run.log_every=1"]), launch, tokenizer)
    transformer = mage.load(launch.out, **ON_CPU).transformer
    assert transformer is not None
    return torch.cat([value.flatten() for value in transformer.state_dict().values()])


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_repeated_run_gives_the_same_bits_on_a_cpu(
    deterministic: bool, tokenizer: mage.Mage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, step = set(), Trainer.train_step

    def watched(trainer: Trainer) -> None:
        asked.add(torch.are_deterministic_algorithms_enabled())
        step(trainer)

    monkeypatch.setattr(Trainer, "train_step", watched)
    launches = [quiet(tmp_path / name, deterministic=deterministic, **ON_CPU) for name in "ab"]
    first, second = (weights(launch, tokenizer) for launch in launches)
    assert torch.equal(first, second)
    assert asked == {deterministic}, "PyTorch is asked for it while a run that wants it trains, and otherwise not"
    assert not torch.are_deterministic_algorithms_enabled(), "the caller's setting is kept"


def test_an_operation_that_cannot_be_repeated_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"bit by bit \(put_ does not have .*leave out --deterministic"), repeatable():
        torch.zeros(3).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="shape"), repeatable():
        torch.zeros(3) @ torch.zeros(4).view(2, 2)[:1].repeat(5, 1)


def test_another_number_of_threads_agrees_to_rounding(tokenizer: mage.Mage, tmp_path: Path) -> None:
    weights(quiet(tmp_path / "one", **ON_CPU), tokenizer)
    torch.set_num_threads(2)
    try:
        weights(quiet(tmp_path / "two", **ON_CPU), tokenizer)
    finally:
        torch.set_num_threads(1)
    one, two = ([line["loss"] for line in read_log(tmp_path / name) if "loss" in line] for name in ("one", "two"))
    assert len(one) == 4
    assert two == pytest.approx(one, rel=1e-5)


def test_features_of_an_image_in_another_batch_agree_to_rounding() -> None:
    model, pixels = mage.load("digits", **ON_CPU), torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    together = model.features(pixels)
    apart = torch.cat([model.features(pixel[None]) for pixel in pixels])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
