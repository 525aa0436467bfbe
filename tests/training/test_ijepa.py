"""The task of I-JEPA: it trains to a model, resumes, does not depend on the cutting, and follows the textbook."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mage
from mage import rng, runs
from mage.models.ijepa import IJEPA, IJEPAConfig
from mage.models.pixels import PatchEncoder, PatchEncoderConfig
from mage.recipes import named
from mage.recipes.schema import Recipe
from mage.runs.inputs import load_images, open_data
from mage.settings import override
from mage.share import Share
from mage.training.checkpoint import newest_checkpoint
from mage.training.engine import Trainer
from mage.training.ijepa import IJEPAPretraining
from mage.training.optim import OptimConfig
from mage.training.runlog import read_log
from tests.reference import ijepa as reference
from tests.reference.launches import quiet

SMALL = "method={name: ijepa, patch_size: 2, ijepa: {predictor_width: 16, predictor_depth: 1, momentum: 0.9}}"
CHANGES = [SMALL, "tokenizer=null", "data.channels=1", "pretraining.ema_decay=0", "run.log_every=1"]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return override(named("smoke"), CHANGES)


def task(momentum: float = 0.99, **optim: Any) -> IJEPAPretraining:
    """On 256 digits, whose batches are rows of them in order."""
    digits = load_images(open_data("digits", "train", named("smoke"), None), list(range(256)), TRANSFORM)
    settings = OptimConfig(**{"batch_size": 64, "steps": 60, "base_learning_rate": 4e-3, "ema_decay": 0.0} | optim)

    def source(start: int, share: Share) -> Iterator[dict[str, Tensor]]:
        for step in range(start, 10**6):
            for part in range(share.parts):
                yield {"images": digits[[(step * share.batch_size + row) % 256 for row in share.rows(part)]]}

    torch.manual_seed(0)
    sizes = PatchEncoderConfig(image_size=(8, 8), channels=1, patch_size=2, width=32, depth=2, heads=2)
    network = IJEPA(sizes, IJEPAConfig(predictor_width=16, predictor_depth=1, momentum=momentum))
    return IJEPAPretraining(
        network, source, num_images=256, optim=settings, recipe={}, seed=0, validation=digits[:64], watch=None
    )


TRANSFORM = named("smoke").data.transform


def trained(one: IJEPAPretraining, folder: Path, steps: int) -> Trainer:
    trainer = Trainer(one, folder, 0, {}, precision="float32", device=torch.device("cpu"))
    trainer.data = one.batches(0, trainer.share)
    trainer.progress = _Silent()  # type: ignore[assignment]
    for _ in range(steps):
        trainer.train_step()
    return trainer


class _Silent:
    def step(self, loss: object) -> None:
        """No progress bar."""


def observed(one: IJEPAPretraining) -> dict[str, float]:
    with torch.inference_mode():
        return one.observe(one.modules).metrics


def test_ijepa_trains_to_a_model_with_features(recipe: Recipe, tmp_path: Path) -> None:
    result = runs.pretrain(override(recipe, ["data.online_images=200"]), quiet(tmp_path / "run"))
    assert {"valid/loss", "valid/feature_std", "online/knn", "online/linear"} <= result.metrics.keys()
    model = mage.load(tmp_path / "run")
    assert isinstance(model.transformer, PatchEncoder)
    pictures = torch.rand(3, 1, 8, 8, generator=rng.generator(0))
    assert model.features(pictures).shape == (3, 16)
    assert model.features(pictures, pool="both").shape == (3, 32)
    assert model.forward_intermediates(pictures, 1)[0].shape == (3, 16, 4, 4)
    with pytest.raises(ValueError, match="cannot generate"):
        model.generate(1)
    newest = newest_checkpoint(tmp_path / "run")
    assert newest is not None
    weights = torch.load(newest, weights_only=True)["modules"]["mage"]
    for name, tensor in model.transformer.state_dict().items():  # the target encoder is what is kept
        assert torch.equal(tensor, weights[f"target_encoder.{name}"])
        assert "weight" not in name or not torch.equal(tensor, weights[f"context_encoder.{name}"]), name


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(recipe: Recipe, tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        runs.pretrain(recipe, quiet(tmp_path / name))
    newest = newest_checkpoint(tmp_path / "cut")
    assert newest is not None
    newest.unlink()  # as if the process had died between step 6 and step 12
    runs.pretrain(recipe, quiet(tmp_path / "cut", resume=True))
    states = [torch.load(newest_checkpoint(tmp_path / name), weights_only=True) for name in ("whole", "cut")]  # type: ignore[arg-type]
    first, second = (state["modules"]["mage"] for state in states)
    assert any(name.startswith("target_encoder") for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = [[line["loss"] for line in read_log(tmp_path / name) if "loss" in line] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


def test_accumulated_parts_have_the_losses_of_the_whole_batch(recipe: Recipe, tmp_path: Path) -> None:
    for parts in (1, 4):
        one = override(recipe, [f"pretraining.accumulation={parts}"])
        runs.pretrain(one, quiet(tmp_path / str(parts), precision="float32"))
    whole, cut = ([line for line in read_log(tmp_path / name) if "loss" in line] for name in ("1", "4"))
    assert len(whole) == 12
    for first, second in zip(whole, cut, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
        assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_target_encoder_follows_the_textbook_recursion_once_a_step(tmp_path: Path, accumulation: int) -> None:
    one = task(0.8, steps=6, accumulation=accumulation)
    network = one.modules["mage"]
    assert isinstance(network, IJEPA)
    weights = [part.patches.weight.detach()[3, 1] for part in (network.context_encoder, network.target_encoder)]
    start, currents, targets = float(weights[1]), [], []
    trainer = trained(one, tmp_path, 0)
    for _ in range(6):
        trainer.train_step()
        currents.append(float(weights[0]))
        targets.append(float(weights[1]))
    assert len(set(currents)) == 6
    assert targets == pytest.approx(reference.moving_average(start, currents, 0.8), rel=1e-5)


def test_no_optimizer_holds_the_target_encoder(tmp_path: Path) -> None:
    for optimizer in ("adamw", "muon"):
        one = task(1.0, optimizer=optimizer, steps=3)  # with momentum 1 it stays where it was
        network = one.modules["mage"]
        before = {name: tensor.clone() for name, tensor in network.target_encoder.state_dict().items()}  # type: ignore[operator,union-attr]
        trainer = trained(one, tmp_path, 2)
        held = {id(p) for group in trainer.optimizers["mage"].param_groups for p in group["params"]}
        for name, parameter in network.named_parameters():
            stays = name.startswith("target_encoder") or name == "context_encoder.position"
            assert (id(parameter) in held) != stays, name
            assert parameter.grad is None
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.target_encoder.state_dict().items())  # type: ignore[operator,union-attr]


def test_the_loss_falls_and_features_of_digits_stay_apart(tmp_path: Path) -> None:
    """The moving average does it: with the context encoder of the step before in its place, features draw together."""
    start = observed(task())
    spreads = {}
    for momentum in (0.99, 0.0):
        one = task(momentum)
        trained(one, tmp_path, 60)
        metrics = observed(one)
        assert metrics["valid/loss"] < 0.5 * start["valid/loss"]
        spreads[momentum] = metrics["valid/feature_std"]
    assert spreads[0.99] > 0.7 * start["valid/feature_std"]
    assert spreads[0.0] < 0.7 * start["valid/feature_std"]


def test_collapsed_features_give_a_warning() -> None:
    one = task()
    assert one.warnings(observed(one)) == []
    with torch.no_grad():
        one.modules["mage"].encoder.patches.weight.zero_()  # type: ignore[union-attr,operator]
    (warning,) = one.warnings(observed(one))
    assert warning.kind == "collapse"
    assert "momentum" in warning.sentence
    assert one.warnings({"loss": 1.0}) == []


def test_the_recipe_is_that_of_its_siblings_but_for_the_method() -> None:
    ours, mae = named("cifar10-ijepa"), named("cifar10-mae")
    assert (ours.data, ours.model, ours.run) == (mae.data, mae.model, mae.run)
    assert ours.method.name == "ijepa"
    assert ours.pretraining == override(mae, ["pretraining.ema_decay=0"]).pretraining
