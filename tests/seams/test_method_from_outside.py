"""A method that the library has never heard of: written here, registered, and used like the built-in ones."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

import mage
from mage import images, runs
from mage.models.pixels import PatchEncoder, PatchEncoderConfig
from mage.recipes import named
from mage.recipes.resolve import from_yaml
from mage.recipes.schema import Recipe, to_yaml
from mage.settings import override
from mage.share import Turn
from mage.training.checkpoint import newest_checkpoint
from mage.training.method import METHODS, MethodConfig, MethodInputs
from mage.training.pixels import PixelPretraining, pixel_settings
from mage.training.runlog import read_log
from mage.training.task import Loss, Task
from tests.reference.launches import quiet


@dataclass(frozen=True)
class QuarterConfig:
    """What the method below can be told."""

    angles: int = 4


class Rotations(nn.Module):
    """By how many quarter turns an image was turned (RotNet; Gidaris et al. 2018)."""

    def __init__(self, encoder: PatchEncoderConfig, config: QuarterConfig) -> None:
        super().__init__()
        self.angles = config.angles
        self.encoder = PatchEncoder(encoder)
        self.head = nn.Linear(encoder.width, config.angles)

    def forward(self, pixels: Tensor) -> Tensor:
        """Cross-entropy over all turns of all images."""
        turned = torch.cat([pixels.rot90(angle, (2, 3)) for angle in range(self.angles)])
        labels = torch.arange(self.angles, device=pixels.device).repeat_interleave(len(pixels))
        assert self.encoder.norm is not None
        logits = self.head(self.encoder.norm(self.encoder(turned))[:, 1:].mean(dim=1))
        return nn.functional.cross_entropy(logits, labels)


class RotationTask(PixelPretraining):
    """One loss; and a count of the updates, which a resumed run takes up."""

    updates = 0

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        yield Loss("mage", modules["mage"](images.to_float(batch["images"])))

    def validation_loss(self, objective: nn.Module, pixels: Tensor, index: int) -> float:
        return float(objective(pixels))

    def after_update(self, module: str, step: int) -> None:
        assert (module, step) == ("mage", self.updates)
        self.updates += 1

    def state(self) -> dict[str, int]:
        return {"updates": self.updates}

    def restore(self, state: Mapping[str, int]) -> None:
        self.updates = state["updates"]


@dataclass(frozen=True)
class RotationMethod(MethodConfig):
    """Turned images are told apart."""

    name: str = "rotations"
    patch_size: int = 2
    quarter: QuarterConfig = field(default_factory=QuarterConfig)

    reads: ClassVar[Literal["tokens", "images"]] = "images"

    def build(self, inputs: MethodInputs) -> Task:
        with inputs.random_weights("rotations"):
            network = Rotations(inputs.patch_encoder(self.patch_size), self.quarter)
        return RotationTask(network, inputs.source, **pixel_settings(inputs))


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe with the method, which is registered as long as the test lasts."""
    # The registry has no way out, as no user needs one: the test puts its entries back.
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    METHODS.register("rotations")(RotationMethod)
    changes = ["tokenizer=null", "data.channels=1", "method={name: rotations, quarter: {angles: 2}}"]
    return override(named("smoke"), [*changes, "pretraining.accumulation=2"])


def test_a_strangers_method_trains_resumes_and_is_read_back(recipe: Recipe, tmp_path: Path) -> None:
    assert recipe.method == RotationMethod(quarter=QuarterConfig(angles=2))
    result = runs.pretrain(recipe, quiet(tmp_path / "run"))
    assert result.metrics["valid/loss"] > 0
    assert from_yaml(tmp_path / "run" / "recipe.yaml") == recipe
    newest = newest_checkpoint(tmp_path / "run")
    assert newest is not None
    whole = torch.load(newest, weights_only=True)
    assert whole["task"] == {"updates": 12}
    newest.unlink()
    runs.pretrain(recipe, quiet(tmp_path / "run", resume=True))
    again = torch.load(newest, weights_only=True)
    assert again["task"] == {"updates": 12}
    assert all(torch.equal(again["modules"]["mage"][name], tensor) for name, tensor in whole["modules"]["mage"].items())
    assert len([line for line in read_log(tmp_path / "run") if "loss" in line]) == 4


def test_its_model_is_one_like_any_other(recipe: Recipe, tmp_path: Path) -> None:
    runs.pretrain(recipe, quiet(tmp_path / "run"))
    model = mage.load(tmp_path / "run")
    assert model.recipe["method"] == {"name": "rotations", "patch_size": 2, "quarter": {"angles": 2}}
    pictures = torch.rand(3, 1, 8, 8)
    features = model.features(pictures)
    assert features.shape == (3, 16)
    torch.testing.assert_close(mage.load(model.save(tmp_path / "copy")).features(pictures), features)


def test_its_settings_are_checked_like_those_of_the_library(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"method\.quarter has no setting 'angels'; it has angles"):
        override(recipe, ["method={name: rotations, quarter: {angels: 3}}"])
    with pytest.raises(ValueError, match=r"method\.quarter\.angles must be int"):
        override(recipe, ["method.quarter.angles=many"])
    with pytest.raises(ValueError, match="rotations reads pixels"):
        runs.pretrain(recipe, quiet(tmp_path / "run"), mage.Mage(tokenizer=None, transformer=None))
    text = to_yaml(recipe)
    assert "name: rotations" in text


def test_an_unknown_method_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"no method 'rotations'.*mage.*ijepa"):
        override(named("smoke"), ["method={name: rotations}"])
