"""The measures of a report, on folders as people have them: one class, unreadable files, few images."""

from pathlib import Path

import pytest
import torch

import mage
from mage import images, rng
from mage.evaluation.metric import Measured
from mage.evaluation.sample_metrics import SamplesAndData
from mage.recipes import Recipe, named
from mage.runs import showcase
from mage.runs.showcase import Showcase
from mage.settings import override


def folder(root: Path, classes: tuple[str, ...], count: int, *, train: str = "train", test: str = "test") -> Path:
    """Noise, darker in the first class than in the others, of two sizes, with an unreadable file that comes first."""
    for split, number in [(train, number) for number in range(count)] + [(test, number) for number in range(4)]:
        label = number % len(classes)
        size = (8, 8) if number % 3 else (10, 12)
        pixels = torch.rand(1, *size, generator=rng.generator(number, split)) * 0.3 + 0.6 * (label > 0)
        images.save_png(root / split / classes[label] / f"{number:02}.png", pixels)
    (root / train / classes[0] / "00.png").write_text("no image")
    return root


def of_folder(root: Path) -> Recipe:
    return override(named("smoke"), [f"data.name={root}"])


def shown(recipe: Recipe, out: Path) -> Showcase:
    model = mage.build(recipe.model, tokenizer=recipe.tokenizer, precision="float32", device="cpu")
    return Showcase(model, recipe, out, num_samples=8, probes=("mean", "knn", "pixels"))


def test_a_folder_of_one_class_is_measured_without_its_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    show = shown(of_folder(folder(tmp_path / "photos", ("all",), 30)), tmp_path / "out")
    show.run()
    assert "psnr_db" in show.metrics
    assert "near_copy_share" in show.metrics
    assert not [name for name in show.metrics if "probe" in name or "knn" in name or "confident" in name]
    assert "single class; a probe needs at least two" in caplog.text


def test_a_test_folder_without_classes_is_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folder(tmp_path / "photos", ("a", "b"), 30)
    for path in sorted((root / "test").glob("*/*.png")):
        path.rename(root / "test" / path.name)
    for left in (root / "test" / "a", root / "test" / "b"):
        left.rmdir()
    show = shown(of_folder(root), tmp_path / "out")
    show.features()
    assert not show.metrics
    assert "has no labels" in caplog.text


def test_the_judge_learns_each_image_with_its_own_label_after_an_unreadable_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[SamplesAndData] = []

    def measure(subject: SamplesAndData) -> Measured:
        given.append(subject)
        details = {"near_copy_share": {"distances": [0.0] * 8, "training_images": [0] * 8}}
        return Measured(details=details)

    monkeypatch.setattr(showcase, "measure_samples", measure)
    show = shown(of_folder(folder(tmp_path / "photos", ("dark", "light"), 40)), tmp_path / "out")
    show.judge_samples(torch.rand(8, 1, 8, 8))
    (subject,) = given
    assert subject.labels is not None
    assert len(subject.labels) == len(subject.train) == 39
    brightness = subject.train.float().mean((1, 2, 3))
    assert torch.equal(subject.labels.bool(), brightness > 127)


def test_samples_are_compared_with_as_many_training_images_as_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showcase, "COMPARED_BYTES", 20 * 8 * 8)
    recipe = of_folder(folder(tmp_path / "photos", ("dark", "light"), 40))
    show = shown(recipe, tmp_path / "out")
    show.judge_samples(torch.rand(8, 1, 8, 8))
    assert "to 19 training images" in show.protocols["near_copy_share"]  # one of the 20 is unreadable
