"""Adapting a model to a folder: what it keeps, what it decides, how it goes on, and what it says before and after."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mage
from mage import images, runs
from mage.data.token_cache import TokenCache
from mage.evaluation.image_classifier import model_fingerprint
from mage.recipes import fitting, named
from mage.report import write_report
from mage.runs import fitted
from mage.runs.adapt import adapt
from mage.runs.adapted_recipe import adapted_recipe, tuning_recipe
from mage.runs.before_after import colour_warnings, pretraining_warnings
from mage.runs.journal import Journal
from mage.runs.pace import Pace
from mage.runs.tokenizer_check import TokenizerCheck, cell_averages, check_tokenizer, tokenizer_warnings
from mage.settings import override, to_dict
from mage.training.contrastive import MAGECMethod
from mage.training.method import METHODS
from mage.training.run import Interrupted
from tests.reference.launches import quiet

MODULE = sys.modules[adapt.__module__]
"""The file, whose name in `mage.runs` is that of the function."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on scikit-learn's digits, with their classes at the decoder's input: a few steps of a tiny model."""
    root = tmp_path_factory.mktemp("trained")
    changes = ["model.class_input=decoder", "method.conditions.source=labels", "sampling.guidance=1"]
    recipe = override(named("smoke"), changes)
    runs.train_tokenizer(recipe, quiet(root / "tokenizer"))
    tokenizer = runs.load_tokenizer(root / "tokenizer")
    cache = runs.tokenize(recipe, quiet(root / "tokens"), tokenizer)
    runs.pretrain(recipe, quiet(root / "run"), tokenizer, cache=cache)
    return root / "run"


@pytest.fixture
def model(trained: Path) -> mage.Mage:
    return mage.load(trained, device="cpu", precision="float32")


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps count as slow, so that a minute is a few of them."""
    monkeypatch.setattr(fitting, "FEWEST_STEPS_CONTINUED", 4)
    for name in ("tokenizer_pace", "pretraining_pace"):
        monkeypatch.setattr(fitted, name, lambda *_: Pace(3.0, 2))


def folder_of(root: Path, classes: tuple[str, ...], count: int, channels: int = 1) -> Path:
    """Images of stripes, wider in each class, of other sizes than the model's."""
    for number, name in enumerate(classes):
        for index in range(count):
            random = torch.Generator().manual_seed(100 * number + index)
            stripes = (torch.arange(20) // (number + 2) % 2).float().expand(channels, 12, 20)
            images.save_png(root / name / f"{index}.png", stripes * torch.rand(channels, 1, 1, generator=random))
    return root


def test_a_run_of_another_folder_comes_out_and_the_model_is_as_it_was(
    trained: Path, model: mage.Mage, few_steps: None, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "photos", ("wide", "narrow"), 20)
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    adapted = adapt(model, folder, quiet(tmp_path / "run"), minutes=1, tokenizer="tune")
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
    new = mage.load(tmp_path / "run", precision="float32")
    assert new.class_names == ("narrow", "wide")
    assert new.generate(2, classes="wide", seed=0).shape == (2, 1, 8, 8)
    assert new.tokenizer.fingerprint() == model.tokenizer.fingerprint(), "tokens keep their meaning"
    assert model_fingerprint(new) != model_fingerprint(model)
    for measured in (adapted.before, adapted.after):
        assert {"psnr_db", "masked_loss", "knn_accuracy"} <= set(measured.metrics)
        low, high = measured.details["knn_accuracy"]["interval"]
        assert low <= measured.metrics["knn_accuracy"] <= high
    stored = json.loads((tmp_path / "run" / "adapt.json").read_text())
    assert stored["result"]["after"]["metrics"] == adapted.after.metrics
    page = write_report(tmp_path / "run").read_text()
    assert "Before and after" in page
    assert "Samples of the given model" in page


def test_a_decoder_is_tuned_without_moving_the_codes(model: mage.Mage, tmp_path: Path) -> None:
    """Encoder and codebook are equal to the last bit; the decoder is not."""
    folder = folder_of(tmp_path / "photos", ("a",), 20)
    recipe = tuning_recipe(adapted_recipe(model, folder, None))
    recipe = override(recipe, ["tokenizer_training.steps=3", "tokenizer_training.batch_size=8"])
    runs.train_tokenizer(recipe, quiet(tmp_path / "tokenizer"), init_from=model.tokenizer)
    tuned = runs.load_tokenizer(tmp_path / "tokenizer").tokenizer
    changed = {
        name.split(".")[0]
        for name, tensor in tuned.state_dict().items()
        if not torch.equal(tensor, model.tokenizer.state_dict()[name])
    }
    assert changed == {"decoder"}


def test_without_the_perceptual_weights_a_decoder_is_tuned_without_them(
    model: mage.Mage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = override(
        adapted_recipe(model, folder_of(tmp_path / "photos", ("a",), 20), None), ["tokenizer_loss.perceptual=0.5"]
    )
    assert tuning_recipe(recipe).tokenizer_loss.perceptual == 0.5
    assert not caplog.messages
    monkeypatch.setattr("mage.runs.adapted_recipe.perceptual_network", lambda channels: None)
    assert tuning_recipe(recipe).tokenizer_loss.perceptual == 0
    assert 'pip install "mage-vision[metrics]"' in caplog.text


def test_a_tokenizer_with_random_weights_is_not_frozen(model: mage.Mage, tmp_path: Path) -> None:
    frozen = override(named("smoke"), ["tokenizer_loss.freeze_encoder=true"])
    with pytest.raises(ValueError, match="needs a tokenizer that has weights"):
        runs.train_tokenizer(frozen, quiet(tmp_path / "a"))
    other = override(named("smoke"), ["tokenizer.width=32"])
    with pytest.raises(ValueError, match="other sizes"):
        runs.train_tokenizer(other, quiet(tmp_path / "b"), init_from=model.tokenizer)
    assert not list(tmp_path.iterdir())


def test_classes_follow_the_folder_where_the_model_has_classes(model: mage.Mage, tmp_path: Path) -> None:
    classes = folder_of(tmp_path / "classes", ("a", "b"), 12)
    plain = folder_of(tmp_path / "plain", ("",), 12)
    one = folder_of(tmp_path / "one", ("a",), 12)

    def conditions(model: mage.Mage, folder: Path) -> tuple[str, float]:
        recipe = adapted_recipe(model, folder, None)
        return recipe.method.class_conditions.source, recipe.sampling.guidance

    assert conditions(model, classes) == ("labels", 1.0)
    assert conditions(model, plain) == ("none", 0.0), "guidance needs classes"
    assert conditions(model, one) == ("none", 0.0)
    smoke = named("smoke")
    without = mage.build(smoke.model, tokenizer=smoke.tokenizer, precision="float32")
    without.recipe = model.recipe
    assert conditions(without, classes) == ("none", 0.0)


def test_a_model_of_another_method_goes_on_by_it(model: mage.Mage, tmp_path: Path) -> None:
    smoke = named("smoke")
    other = mage.build(smoke.model, tokenizer=smoke.tokenizer, precision="float32")
    other.recipe = to_dict(replace(smoke, method=MAGECMethod()))
    recipe = adapted_recipe(other, folder_of(tmp_path / "classes", ("a", "b"), 12), None)
    assert isinstance(recipe.method, MAGECMethod)
    assert recipe.sampling.guidance == 0


def test_small_folders_hold_out_a_fifth_and_large_ones_the_recipes_share(model: mage.Mage, tmp_path: Path) -> None:
    small = folder_of(tmp_path / "small", ("",), 30)
    assert adapted_recipe(model, small, None).data.validation.share == 0.2
    assert adapted_recipe(model, "digits", None).data.validation.share == named("smoke").data.validation.share


def test_a_models_own_sizes_and_the_users_changes_are_kept(model: mage.Mage, tmp_path: Path) -> None:
    """A network may have other sizes than its recipe says, such as those of a tokenizer that was trained apart."""
    model.recipe["model"] = model.recipe["model"] | {"width": 32}
    folder = folder_of(tmp_path / "photos", ("",), 12)
    recipe = adapted_recipe(model, folder, None, changes=["data.transform.augmentation=flip"], seed=7)
    assert recipe.model.width == 16
    assert recipe.data.transform.augmentation == "flip"
    assert recipe.seed == 7
    with pytest.raises(ValueError, match="no setting"):
        adapted_recipe(model, folder, None, changes=["data.colour=3"])


def test_a_stopped_call_goes_on_and_ends_like_an_uninterrupted_one(
    model: mage.Mage, few_steps: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "photos", ("a", "b"), 20)
    whole = adapt(model, folder, quiet(tmp_path / "whole"), minutes=1, tokenizer="tune")
    stop = METHODS.get("mage").build

    def refuse(*arguments: object) -> object:
        raise Interrupted("stopped")

    monkeypatch.setattr(METHODS.get("mage"), "build", refuse)
    with pytest.raises(Interrupted):
        adapt(model, folder, quiet(tmp_path / "parts"), minutes=1, tokenizer="tune")
    monkeypatch.setattr(METHODS.get("mage"), "build", stop)
    monkeypatch.setattr(MODULE, "check_tokenizer", None)  # what is finished is not measured again
    went_on = adapt(model, folder, quiet(tmp_path / "parts"), minutes=1, tokenizer="tune")
    assert went_on.after.metrics == whole.after.metrics
    monkeypatch.setattr(MODULE, "pretrain", None)
    assert adapt(model, folder, quiet(tmp_path / "parts"), minutes=1, tokenizer="tune") == went_on


def test_a_folder_of_another_adaptation_is_refused(model: mage.Mage, few_steps: None, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", ("a", "b"), 10)
    adapt(model, folder, quiet(tmp_path / "run"), minutes=1, tokenizer="keep")
    with pytest.raises(ValueError, match="tokenizer: 'keep' is not 'tune'"):
        adapt(model, folder, quiet(tmp_path / "run"), minutes=1, tokenizer="tune")
    other = folder_of(tmp_path / "others", ("c",), 20)
    with pytest.raises(ValueError, match="images: "):
        adapt(model, other, quiet(tmp_path / "run"), minutes=1, tokenizer="keep")


def test_a_run_or_model_of_another_kind_is_not_touched(trained: Path, model: mage.Mage, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", ("",), 12)
    model.save(tmp_path / "model")
    for out, message in ((trained, "no adaptation"), (tmp_path / "model", "is a model folder")):
        with pytest.raises(ValueError, match=message):
            adapt(model, folder, quiet(out))


def test_too_few_images_or_minutes_are_refused_before_any_training(
    model: mage.Mage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = folder_of(tmp_path / "one", ("",), 1)
    with pytest.raises(ValueError, match="holds 1 images to train on: adapting takes at least 10"):
        adapt(model, one, quiet(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"--set pretraining\.steps=9 cannot be given with them"):
        adapt(model, one, quiet(tmp_path / "run"), changes=("pretraining.steps=9",))
    assert not (tmp_path / "run").exists()
    for name in ("tokenizer_pace", "pretraining_pace"):
        monkeypatch.setattr(fitted, name, lambda *_: Pace(1.0, 2))
    folder = folder_of(tmp_path / "photos", ("",), 12)
    with pytest.raises(ValueError, match=r"1 minutes, 75% of them for this training, are 38 steps .* at least 2"):
        adapt(model, folder, quiet(tmp_path / "run"), minutes=1, tokenizer="tune")
    assert not (tmp_path / "run" / "tokenizer").exists()
    with pytest.raises(ValueError, match="at least 4"):
        adapt(model, folder, quiet(tmp_path / "run"), minutes=2, tokenizer="tune")


def test_thirty_images_with_unreadable_ones_among_them_are_enough(
    model: mage.Mage, few_steps: None, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "photos", ("",), 30, channels=3)
    for index in (3, 9, 12, 20, 21):
        (folder / f"{index}.png").write_text("this is no image")
    adapted = adapt(model, folder, quiet(tmp_path / "run"), minutes=1)
    assert sorted(Path(path).name for path in adapted.skipped) == ["12.png", "20.png", "21.png", "3.png", "9.png"]
    assert any("no labels" in reason for reason in adapted.after.left_out)
    assert TokenCache(tmp_path / "run" / "tokens").grid == (4, 4)
    assert mage.load(tmp_path / "run").class_names == (), "names of the old classes stay behind"


def test_a_tokenizer_is_tuned_where_it_loses_too_much_and_kept_where_that_does_not_help(
    model: mage.Mage, few_steps: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By held-out images: of its own training's PSNR more than a decibel is lost, or tuning gains nothing."""
    folder = folder_of(tmp_path / "photos", ("",), 20)
    trained_for: list[bool] = []
    found = iter(
        [TokenizerCheck(4, 20.5, 15.0, 21.0), TokenizerCheck(4, 19.0, 15.0, 21.0), TokenizerCheck(4, 18.0, 15.0)]
    )
    monkeypatch.setattr(MODULE, "check_tokenizer", lambda *_: next(found))
    original = runs.train_tokenizer
    monkeypatch.setattr(MODULE, "train_tokenizer", lambda *a, **k: trained_for.append(True) or original(*a, **k))
    near = adapt(model, folder, quiet(tmp_path / "near"), minutes=1)
    assert (near.tokenizer, trained_for) == ("kept", [])
    far = adapt(model, folder, quiet(tmp_path / "far"), minutes=1)
    assert (far.tokenizer, trained_for) == ("kept", [True])
    decoder = mage.load(tmp_path / "far").tokenizer.decoder.out.weight
    assert torch.equal(decoder, model.tokenizer.decoder.out.weight)
    assert any("did not make the tokenizer better" in warning for warning in far.warnings)
    assert any("which the model then never draws" in warning for warning in far.warnings)


def test_each_step_is_announced_in_order_and_a_finished_call_says_so(
    model: mage.Mage, few_steps: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(tmp_path / "photos", ("",), 20)
    with caplog.at_level("INFO", logger="mage"):
        adapt(model, folder, quiet(tmp_path / "run"), minutes=1, tokenizer="tune")
        said = [message for message in caplog.messages if message.startswith("step ") and " of 5: " in message]
        assert [message.split(":")[0] for message in said] == [f"step {step} of 5" for step in range(1, 6)]
        assert "decoder is tuned; its codes stay" in said[2]
        assert any(message.startswith("tuning a tokenizer's decoder by recipe") for message in caplog.messages)
        assert not any("training a tokenizer" in message for message in caplog.messages)
        caplog.clear()
        adapt(model, folder, quiet(tmp_path / "run"), minutes=1, tokenizer="tune")
    assert any("is finished already" in message for message in caplog.messages)
    assert not any(" of 5: " in message for message in caplog.messages)


def test_a_grey_model_says_that_it_sees_no_colours(tmp_path: Path) -> None:
    coloured = folder_of(tmp_path / "coloured", ("",), 12, channels=3)
    (coloured / "3.png").write_text("this is no image")
    grey = folder_of(tmp_path / "grey", ("",), 12)
    (said,) = colour_warnings(1, str(coloured), None)
    assert "have colours and the model is grey" in said
    assert colour_warnings(3, str(coloured), None) == []
    assert colour_warnings(1, str(grey), None) == []


def test_without_notes_average_colours_are_the_reference() -> None:
    assert TokenizerCheck(4, 20.0, cells_psnr_db=21.0).loses_too_much
    assert not TokenizerCheck(4, 22.0, cells_psnr_db=21.0).loses_too_much
    assert not TokenizerCheck(4, 20.0, cells_psnr_db=21.0, own_psnr_db=20.5).loses_too_much
    check = TokenizerCheck(4, 18.0, 17.0, own_psnr_db=24.0)
    better = TokenizerCheck(4, 23.5, 17.0, own_psnr_db=24.0)
    assert tokenizer_warnings(check, better) == []
    assert "24.0 dB on the images it was trained for" in tokenizer_warnings(check, None)[0]
    assert "--tokenizer tune" in tokenizer_warnings(check, None)[0]


def test_cells_are_averages_over_the_pixels_of_a_token() -> None:
    pixels = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    averaged = cell_averages(pixels, (2, 3))
    for row in range(2):
        for column in range(3):
            cell = (..., slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
            mean = pixels[cell].mean(dim=(-2, -1), keepdim=True)
            torch.testing.assert_close(averaged[cell], mean.expand_as(averaged[cell]))


def test_the_check_measures_the_models_own_reconstructions(model: mage.Mage) -> None:
    pixels = torch.randint(0, 256, (5, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    check = check_tokenizer(model, pixels)
    decoded = model.decode_tokens(model.encode(pixels))
    assert check.psnr_db == pytest.approx(float(images.psnr(decoded, images.to_float(pixels)).mean()), abs=1e-3)
    assert check.own_psnr_db == model.notes["tokenizer"]["psnr_db"]
    assert check.images == 5
    assert "with a PSNR of" in check.sentence


def test_a_network_that_learns_by_heart_or_nothing_at_all_is_warned_of() -> None:
    log = [{"step": 10, "valid/loss": 3.0}, {"step": 20, "loss": 1.0}, {"step": 30, "valid/loss": 3.2}]
    warned = pretraining_warnings({"masked_loss": 4.0}, {"masked_loss": 3.0}, log)
    assert len(warned) == 1
    assert "rose from 3.000 at step 10 to 3.200" in warned[0]
    assert "did not fall" in pretraining_warnings({"masked_loss": 4.0}, {"masked_loss": 4.1}, [])[0]
    assert pretraining_warnings({"masked_loss": 4.0}, {"masked_loss": 3.0}, log[:2]) == []


def test_a_model_without_recipe_or_tokenizer_is_refused_with_another_way(model: mage.Mage, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", ("",), 12)
    smoke = named("smoke")
    fresh = mage.build(smoke.model, tokenizer=smoke.tokenizer, precision="float32")
    with pytest.raises(ValueError, match=r"no recipe to continue by: .*--init-from"):
        adapt(fresh, folder, quiet(tmp_path / "run"))
    with pytest.raises(ValueError, match="no tokenizer"):
        adapt(mage.Mage(None, model.transformer, recipe=model.recipe), folder, quiet(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_journal_runs_each_step_once(tmp_path: Path) -> None:
    path, asked = tmp_path / "run" / "adapt.json", {"seed": 1}
    journal = Journal(path, asked)
    assert not path.exists(), "nothing is written before a step is finished"
    assert journal.once("a", lambda: {"x": (1, 2)}) == {"x": [1, 2]}
    again = Journal(path, asked)
    assert again.once("a", lambda: pytest.fail("ran twice")) == {"x": [1, 2]}
    with pytest.raises(ValueError, match="seed: 1 is not 2"):
        Journal(path, {"seed": 2})
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        Journal(path, asked)
