"""`MageFeatures` keeps scikit-learn's contract and gives the features of the model."""

import pickle
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

import mage
from mage.interop.scikit_learn import MageFeatures
from mage.recipes import named
from mage.store.example_images import read_examples

SIZES = mage.MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of grey images of 8 x 8 pixels."""
    return mage.build(SIZES, tokenizer=named("smoke").tokenizer).save(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)


class OnTables(MageFeatures):
    """scikit-learn's checks feed tables of any width and range: their rows are squeezed into images of 8 x 8."""

    def _images(self, X: Any, *, reset: bool) -> Any:
        rows = 1 / (1 + np.exp(-validate_data(self, X, reset=reset, dtype=np.float64)))
        return np.pad(rows[:, :64], ((0, 0), (0, max(0, 64 - rows.shape[1])))).reshape(-1, 8, 8)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


@pytest.mark.filterwarnings("ignore")
def test_the_contract_of_estimators_is_kept(folder: Path) -> None:
    jaxtyping.config.update("jaxtyping_disable", True)  # as users run it: some checks give settings of wrong types
    try:
        results = check_estimator(OnTables(folder), on_skip=None, on_fail=None)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    failed = [(result["check_name"], result["exception"]) for result in results if result["status"] == "failed"]
    assert not failed, "and none is expected to"
    assert sum(result["status"] == "passed" for result in results) > 35


def test_features_are_those_of_the_model_for_images_in_any_form(
    folder: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    expected = mage.load(folder).features(torch.from_numpy(pixels)[:, None]).numpy()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number:02d}.png")
    paths = sorted(tmp_path.glob("*.png"))
    forms: dict[str, Any] = {
        "arrays": pixels,
        "floats": pixels / 255,
        "channels last": pixels[..., None],
        "colour": np.repeat(pixels[..., None], 3, axis=3),
        "paths": paths,
        "strings": np.array([str(path) for path in paths]),
        "column": pandas.Series([str(path) for path in paths]),
        "PIL": [Image.fromarray(image) for image in pixels],
    }
    for form, images in forms.items():
        features = MageFeatures(folder, batch_size=5).fit_transform(images)
        assert features.dtype == np.float32
        assert np.allclose(features, expected, atol=1e-5), form
    rows = MageFeatures(folder, image_shape=(8, 8)).fit_transform(pixels.reshape(12, 64))
    assert np.allclose(rows, expected, atol=1e-5)
    larger = MageFeatures(folder).fit_transform(np.repeat(np.repeat(pixels, 2, axis=1), 2, axis=2))
    assert larger.shape == (12, 16), "scaled to the model's size"


def test_names_and_tables_of_features(folder: Path, pixels: np.ndarray) -> None:
    features = MageFeatures(folder, pool="both").fit(pixels)
    names = list(features.get_feature_names_out())
    assert (names[0], names[-1], len(names)) == ("magefeatures0", "magefeatures31", 32)
    table = features.set_output(transform="pandas").transform(pixels)
    assert list(table.columns) == names


def test_a_clone_and_a_pickle_give_the_same_features(folder: Path, pixels: np.ndarray) -> None:
    model = mage.load(folder)
    features = MageFeatures(model, pool="class").fit(pixels)
    expected = features.transform(pixels)
    assert np.array_equal(clone(features).fit(pixels).transform(pixels), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(features)).transform(pixels), expected)
    assert clone(features).get_params()["pool"] == "class"


def test_settings_are_searched_in_a_pipeline_on_lists_of_images(folder: Path, pixels: np.ndarray) -> None:
    images = [Image.fromarray(image) for image in pixels]
    labels = np.arange(12) % 2
    pipeline = make_pipeline(MageFeatures(folder), LogisticRegression())
    search = GridSearchCV(pipeline, {"magefeatures__pool": ["mean", "both"]}, cv=2, error_score="raise")
    search.fit(images, labels)
    assert set(search.cv_results_["param_magefeatures__pool"]) == {"mean", "both"}
    assert search.predict(images).shape == (12,)


def test_packaged_digits_are_told_apart() -> None:
    images, labels = read_examples("digits")
    pipeline = make_pipeline(MageFeatures("digits"), LogisticRegression(max_iter=1000))
    scores = cross_val_score(pipeline, images[:, 0].numpy(), labels, cv=2)
    # 64 images, half of them for training: three of each class; 0.48 to 0.53 by processor, chance is 0.1 +- 0.04
    assert scores.mean() > 0.3


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 64)), r"two-dimensional, \(4, 64\): give images .* image_shape"),
        ("photos", "give a list of images or paths, not one path: photos"),
        ([], "there are no images"),
        (np.full((2, 8, 8), 16.0), "divide by 255, or give uint8"),
        (["none.png"], "none.png"),
    ],
)
def test_what_is_no_image_is_told(folder: Path, images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MageFeatures(folder).fit(images)


def test_rows_of_another_length_than_the_images_are_told(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"rows of 65 numbers, which are no images of shape \(8, 8\)"):
        MageFeatures(folder, image_shape=(8, 8)).fit(np.zeros((2, 65)))
