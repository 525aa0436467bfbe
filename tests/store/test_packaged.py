"""Models that come with the package are found by name, described by their cards, and left as they are."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import mage
from mage.cli.main import main
from mage.recipes import named
from mage.report.card import card_text, headline
from mage.report.shared_card import facts_of
from mage.store import folder as store
from mage.store import packaged
from mage.store.example_images import read_examples, write_examples
from mage.store.packaged import Card, card_of, names, weights_bytes, weights_hash

RECORD = {
    "commit": "abc",
    "command": "python studies/packaged.py --model toy",
    "machine": "a laptop",
    "seed": 3,
    "seconds": 120.0,
    "timings": {},
    "protocol": {"psnr_db": "mean over 10 test images"},
    "metrics": {"psnr_db": 23.5, "linear_probe_accuracy": 0.9},
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mage.Mage:
    """A packaged model called toy, and the model that it was made of."""
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "packaged")
    monkeypatch.chdir(tmp_path)
    recipe = named("smoke")
    model = mage.build(recipe.model, tokenizer=recipe.tokenizer, precision="float32", device="cpu")
    folder = store.write(model.parts, tmp_path / "packaged" / "toy", dtype=torch.bfloat16)
    card = Card("toys", "ten drawings", "MIT", weights_hash(folder), RECORD, ["it is a toy"])
    (folder / packaged.CARD).write_text(json.dumps(asdict(card)))
    return model


def test_a_packaged_model_is_loaded_by_its_name(toy: mage.Mage) -> None:
    assert names() == ("toy",)
    loaded = mage.load("toy", precision="float32", device="cpu")
    for own, theirs in zip(loaded.require_generator().parameters(), toy.require_generator().parameters(), strict=True):
        assert own.dtype == torch.float32
        assert torch.equal(own, theirs.bfloat16().float())
    assert loaded.generate(1, steps=2).shape == (1, 1, 8, 8)


def test_rounded_weights_take_half_the_space(toy: mage.Mage, tmp_path: Path) -> None:
    whole = store.write(toy.parts, tmp_path / "whole")
    assert weights_bytes(tmp_path / "packaged" / "toy") < 0.7 * weights_bytes(whole), "headers are not halved"


def test_a_folder_in_the_working_directory_comes_before_a_packaged_name(toy: mage.Mage, tmp_path: Path) -> None:
    toy.save(tmp_path / "toy")
    assert store.find_folder("toy") == Path("toy")
    (tmp_path / "other").mkdir()
    assert store.find_folder("other/../packaged/toy") == Path("other/../packaged/toy")


def test_other_names_are_told_which_there_are(toy: mage.Mage) -> None:
    with pytest.raises(ValueError, match="there is no model at tyo; packaged models are toy"):
        mage.load("tyo")
    with pytest.raises(ValueError, match=r"no packaged model '\.\./toy'; there are toy"):
        card_of("../toy")


def test_settings_of_a_packaged_model_are_not_overwritten(toy: mage.Mage) -> None:
    with pytest.raises(ValueError, match=r"mage.load\('toy'\).save"):
        store.write_settings(toy.parts, store.find_folder("toy"))


def test_the_hash_is_that_of_the_weights_alone(toy: mage.Mage, tmp_path: Path) -> None:
    folder = tmp_path / "packaged" / "toy"
    assert card_of("toy").weights == weights_hash(folder)
    (folder / "note.txt").write_text("more")
    assert card_of("toy").weights == weights_hash(folder)
    path = folder / store.TOKENIZER
    path.write_bytes(path.read_bytes() + b" ")
    assert card_of("toy").weights != weights_hash(folder)


def test_models_and_cards_are_shown(toy: mage.Mage, capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    listed = capsys.readouterr().out
    assert listed.startswith("toy: toys (0.0 MB)\n  ten drawings; MIT\n  Tokenizer PSNR 23.5")
    main(["models", "toy"])
    card = capsys.readouterr().out
    for part in (
        "# toy: toys",
        "studies/packaged.py --model toy",
        "| Linear probe",
        "23.5",
        "it is a toy",
        "10 test images",
    ):
        assert part in card
    main(["models", "--json"])
    values = json.loads(capsys.readouterr().out)["toy"]
    assert values["record"] == RECORD
    assert values["bytes"] == weights_bytes(packaged.FOLDER / "toy")
    with pytest.raises(SystemExit, match="2"):
        main(["models", "tyo"])
    assert "there are toy" in capsys.readouterr().err


def test_a_card_shows_the_telling_measures_and_names_what_they_are_held_against() -> None:
    metrics = {"fd_efflite0_test2k_real": 30.0, "kd_efflite0_test2k": 1.0, "fd_efflite0_test2k": 90.0, "ssim": 0.9}
    protocol = {"validation": "of 10 images", "ssim": "of 20 images", "fd_efflite0_test2k": "of 30 images"}
    card = Card("toys", "drawings", "MIT", "abc", RECORD | {"metrics": metrics, "protocol": protocol})
    assert headline(card) == "Fréchet distance 90"
    text = card_text("toy", card)
    assert "| Fréchet distance, real images | 30 |" in text
    assert "of 10 images" in text
    assert "of 30 images" in text
    assert "Kernel" not in text
    assert "of 20 images" not in text, "protocols of measures that are not shown"


def test_without_models_the_list_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "nothing")
    main(["models"])
    assert "no models come with this version" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"there is no model at toy$"):
        mage.load("toy")


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_come_back_as_they_were_written(toy: mage.Mage, tmp_path: Path, channels: int) -> None:
    folder = tmp_path / "packaged" / "toy"
    pictures = torch.arange(16 * channels * 6 * 5).view(16, channels, 6, 5).remainder(251).byte()
    with pytest.raises(ValueError, match="fill rows of 8"):
        write_examples(folder, pictures[:9])
    with pytest.raises(ValueError, match="'toy' has no examples"):
        read_examples("toy")
    write_examples(folder, pictures)
    labels = [f"kind {number}" for number in range(16)]
    (folder / packaged.CARD).write_text(json.dumps(asdict(replace(card_of("toy"), examples=labels))))
    found, named_ = read_examples("toy")
    assert torch.equal(found, pictures)
    assert named_ == labels


def test_a_folder_of_images_named_like_a_packaged_model_takes_nothing_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert packaged.is_meant("digits")
    assert facts_of(Path("digits")).title == packaged.card_of("digits").title
    (tmp_path / "digits" / "config.json").write_text("{}")
    assert not packaged.is_meant("digits")
    assert not packaged.is_meant("birds")
