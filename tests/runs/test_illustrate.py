"""Pictures for reports of plain runs: drawn from the model, once, and of what there is."""

import json
import os
from pathlib import Path

import pytest
import torch

import mage
from mage import images, runs
from mage.models import MAGEClassifier
from mage.recipes import named
from mage.runs.gallery import SHOWN, Gallery
from mage.runs.illustrate import illustrate
from mage.settings import override
from mage.store import folder as store
from tests.reference.launches import quiet

SETTINGS = ("model.class_input=decoder", "method.conditions.source=labels")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of a tokenizer and of a tiny model with classes."""
    root = tmp_path_factory.mktemp("trained")
    recipe = override(named("smoke"), list(SETTINGS))
    runs.train_tokenizer(recipe, quiet(root / "tokenizer"))
    tokenizer = runs.load_tokenizer(root / "tokenizer")
    runs.pretrain(recipe, quiet(root / "model"), tokenizer, cache=runs.tokenize(recipe, quiet(root / "t"), tokenizer))
    return root


def drawn(run: Path) -> set[str]:
    return {path.stem for path in (run / "figures").glob("*.png")}


def test_a_run_keeps_what_it_was_made_of(trained: Path) -> None:
    facts = {name: json.loads((trained / name / "run.json").read_text()) for name in ("tokenizer", "model")}
    assert [facts[name]["kind"] for name in facts] == ["tokenizer", "mage"]
    model = mage.load(trained / "model")
    assert facts["model"]["parameters"] == sum(weight.numel() for weight in model.transformer.parameters())
    assert facts["model"]["images"] == 1425
    assert facts["model"]["classes"] == [str(digit) for digit in range(10)]
    assert facts["model"]["device"] == "cpu"


def test_every_picture_that_a_model_can_give_is_drawn_once(trained: Path) -> None:
    run = trained / "model"
    found = illustrate(run)
    assert found.problems == ()
    assert set(found.names) == {"tokenizer", "samples", "reconstruct", "edit", "classes", "neighbours"} == drawn(run)
    assert images.load_image(run / "figures" / "samples.png", channels=1).shape[1] >= 500, "large enough to see"
    assert illustrate(run).names == (), "nothing is missing"
    os.utime(run / "figures" / "edit.png", (0, 0))
    assert illustrate(run).names == (), "the times of files say nothing"
    model = mage.load(run)
    model.parts.notes["more"] = "training"
    store.write_settings(model.parts, run / "model")
    assert set(illustrate(run).names) == set(found.names), "they show an earlier state of the model"


def test_pictures_that_a_demo_has_drawn_are_drawn_anew_after_more_training(trained: Path, tmp_path: Path) -> None:
    model = mage.load(trained / "model")
    model.save(tmp_path / "model")
    Gallery(model, torch.rand(SHOWN, 1, *model.image_size), tmp_path, num_samples=4).draw()
    before = illustrate(tmp_path)
    assert before.names == ("neighbours",), "a demo draws none"
    model.parts.notes["further"] = "training"
    store.write_settings(model.parts, tmp_path / "model")
    assert set(illustrate(tmp_path).names) == drawn(tmp_path)


def test_a_tokenizer_shows_reconstructions_of_held_out_images(trained: Path) -> None:
    assert illustrate(trained / "tokenizer").names == ("tokenizer",)
    assert drawn(trained / "tokenizer") == {"tokenizer"}


def test_without_the_data_there_are_samples_and_a_reason(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    model = mage.load(trained / "model")
    model.recipe["data"]["name"] = str(tmp_path / "gone")
    model.save(run / "model")
    found = illustrate(run)
    assert found.names == ("samples", "classes")
    assert len(found.problems) == 1
    assert "gone" in found.problems[0]


def test_a_folder_without_a_model_has_nothing_to_draw(tmp_path: Path) -> None:
    assert illustrate(tmp_path) == ((), ())
    assert not list(tmp_path.iterdir())


def test_a_classifier_of_tokens_without_its_tokenizer_has_nothing_to_draw(tmp_path: Path, trained: Path) -> None:
    model = mage.load(trained / "model")
    torch.manual_seed(0)
    network = model.transformer
    classifier = MAGEClassifier(network.config, network.vocabulary, network.grid, num_classes=3)
    mage.Mage(None, classifier).save(tmp_path / "model")
    assert illustrate(tmp_path) == ((), ())


def test_an_encoder_of_pixels_shows_neighbours(tmp_path: Path) -> None:
    recipe = override(named("cifar10-mae"), ["data.name=digits", "data.transform.size=[8,8]", "data.online_images=0"])
    tiny = ["model.depth=1", "model.width=16", "model.heads=2", "pretraining.steps=2", "pretraining.batch_size=16"]
    runs.pretrain(override(recipe, tiny), quiet(tmp_path / "mae"))
    assert illustrate(tmp_path / "mae").names == ("neighbours",)
