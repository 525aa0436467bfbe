"""A classifier in a folder answers as the probe that was measured did, and nothing else is read as one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mage
from mage import atomic, images, rng
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.features import Features
from mage.evaluation.image_classifier import FORMAT, ClassifierConfig, ImageClassifier, check_new_folder
from mage.evaluation.lars_probe import LarsConfig
from mage.evaluation.linear_probe import linear_probe
from mage.models import MAGEConfig
from mage.recipes import named
from mage.runs.finetune import start_classifier


@pytest.fixture(scope="module")
def model() -> mage.Mage:
    sizes = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return mage.build(sizes, tokenizer=named("smoke").tokenizer, precision="float32")


def pictures(count: int, name: str) -> torch.Tensor:
    """Dark and bright noise in turn."""
    noise = torch.rand(count, 1, 8, 8, generator=rng.generator(0, name))
    return images.to_uint8(noise * 0.4 + 0.6 * (torch.arange(count) % 2)[:, None, None, None])


@pytest.fixture(scope="module", params=["lbfgs", "ridge", "lars"])
def kept(request: pytest.FixtureRequest, model: mage.Mage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of dark and bright images; its folder also holds the measured accuracy."""
    parts = [
        Features(model.features(images.to_float(pictures(count, name))), torch.arange(count) % 2)
        for count, name in ((80, "train"), (40, "test"))
    ]
    result = linear_probe(*parts, protocol=request.param, lars=LarsConfig(base_learning_rate=3.0))
    assert result.head is not None
    folder = tmp_path_factory.mktemp("kept") / "classifier"
    config = ClassifierConfig(FORMAT, ("dark", "bright"), "mean", 9 if request.param == "lars" else 0, request.param)
    with atomic.replacing_folder(folder) as temporary:
        ImageClassifier(model, result.head, config).write(temporary)
        atomic.write_json(temporary / "measured.json", [result.accuracy, result.confusion.right])
    return folder


def test_the_kept_head_gives_the_answers_that_were_measured(kept: Path) -> None:
    classifier = mage.load_classifier(kept, precision="float32")
    scores = classifier.scores(images.to_float(pictures(40, "test")))
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(40))
    right = int((scores.argmax(dim=1) == torch.arange(40) % 2).sum())
    accuracy, measured = json.loads((kept / "measured.json").read_text())
    assert right == measured == round(40 * accuracy)
    assert accuracy > 0.5, "even random features tell bright from dark"


def test_predictions_name_classes_of_files_arrays_and_pil_images_alike(kept: Path, tmp_path: Path) -> None:
    classifier = mage.load_classifier(kept, precision="float32")
    large = torch.rand(1, 20, 31, generator=rng.generator(0, "large"))
    images.save_png(tmp_path / "large.png", large)
    forms = [tmp_path / "large.png", images.to_pil(large), images.to_uint8(large)[0].numpy()]
    found = classifier.predict(forms)
    assert len({one.name for one in found}) == 1
    assert [one.score for one in found] == pytest.approx([found[0].score] * 3)
    cut = build_transform(classifier.transform)(images.to_uint8(large), torch.Generator())
    expected = classifier.scores(images.to_float(cut[None]))[0]
    assert found[0].score == pytest.approx(float(expected.max()))
    assert found[0].name == classifier.class_names[int(expected.argmax())]


def test_the_fingerprint_changes_with_the_head_alone(kept: Path, tmp_path: Path) -> None:
    before = mage.load_classifier(kept, precision="float32")
    after = mage.load_classifier(kept, precision="float32")
    assert before.fingerprint == after.fingerprint
    assert after.head is not None
    after.head.bias += 1
    assert before.fingerprint != after.fingerprint


def test_a_fine_tuned_model_is_a_classifier_with_its_class_names(model: mage.Mage, tmp_path: Path) -> None:
    network = start_classifier(model, 2)
    recipe = {"data": {"test_resize": 1}}
    tuned = mage.Mage(model.tokenizer, network, recipe=recipe, notes={"class_names": ["dark", "bright"]})
    tuned.save(tmp_path / "tuned")
    classifier = mage.load_classifier(tmp_path / "tuned", precision="float32")
    assert classifier.class_names == ("dark", "bright")
    assert classifier.transform == TransformConfig(size=(8, 8))
    pixels = images.to_float(pictures(4, "test"))
    torch.testing.assert_close(classifier.scores(pixels), tuned.classify(pixels).float().softmax(dim=1))


def test_what_is_no_classifier_is_refused_in_one_sentence(kept: Path, model: mage.Mage, tmp_path: Path) -> None:
    model.save(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"is no classifier.*mage probe"):
        mage.load_classifier(tmp_path / "plain")
    with pytest.raises(ValueError, match="there is no model"):
        mage.load_classifier(tmp_path / "none")
    config, head = json.loads((kept / "classifier.json").read_text()), load_file(kept / "classifier.safetensors")
    wrong = {
        "no setting 'color'": config | {"color": 1},
        "has format 7": config | {"format": 7},
        "does not fit": config | {"class_names": ["a", "b", "c"]},
        "pool must be one of": config | {"pool": "max"},
        "belong to different classifiers": config | {"pool": "both"},
        "must be a mapping": [1],
    }
    for number, (message, values) in enumerate(wrong.items()):
        folder = tmp_path / str(number)
        model.save(folder / "model")
        (folder / "classifier.json").write_text(json.dumps(values))
        save_file(head, folder / "classifier.safetensors")
        with pytest.raises(ValueError, match=message):
            mage.load_classifier(folder, precision="float32")
    (tmp_path / "0" / "classifier.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="not readable as JSON"):
        mage.load_classifier(tmp_path / "0")


def test_a_folder_of_anything_else_is_not_replaced(kept: Path, tmp_path: Path) -> None:
    check_new_folder(tmp_path / "new")
    check_new_folder(kept)
    (tmp_path / "thesis.txt").write_text("all of it")
    for taken in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(ValueError, match="nothing was overwritten"):
            check_new_folder(taken)
