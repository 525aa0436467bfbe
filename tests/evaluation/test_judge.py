"""The judge: right on real images, sure of them, trained once, and independent of where it runs."""

from pathlib import Path

import pytest
import torch

from mage import images
from mage.data.datasets import ArrayDataset, CorruptImage, load_dataset
from mage.evaluation import judge as judging
from mage.evaluation.judge import JudgeConfig, judge_extractor, judge_of, load_or_train, train_judge
from mage.evaluation.metric import NotMeasured
from mage.evaluation.recognisable import Recognisable, ask
from mage.evaluation.sample_metrics import SamplesAndData

QUICK = JudgeConfig(epochs=2)


def digits(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    dataset = load_dataset("digits", split=split)
    assert dataset.labels is not None
    pixels = torch.stack([dataset.load(index) for index in range(len(dataset))])
    return pixels, torch.from_numpy(dataset.labels)


def test_a_judge_tells_digits_apart_and_is_unsure_between_two() -> None:
    pixels, labels = digits("test")
    judge = train_judge(*digits("train"), JudgeConfig(epochs=6))
    with torch.inference_mode():
        assert (judge(pixels).argmax(dim=1) == labels).float().mean() > 0.95
    between = pixels // 2 + pixels.roll(1, dims=0) // 2
    assert ask(judge, pixels).confident_share > ask(judge, between).confident_share + 0.2
    assert sum(ask(judge, pixels).class_shares) == pytest.approx(1)


def test_a_judge_is_trained_once_for_the_same_images_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, labels = digits("train")
    first = load_or_train(pixels, labels, QUICK, cache=tmp_path / "judges")
    other = load_or_train(pixels, labels.flip(0), QUICK, cache=tmp_path / "judges")
    monkeypatch.setattr(judging, "train_judge", lambda *_, **__: pytest.fail("it was trained again"))
    kept = load_or_train(pixels, labels, QUICK, cache=tmp_path / "judges")
    assert all(torch.equal(value, kept.state_dict()[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.head.weight, other.head.weight)
    with pytest.raises(pytest.fail.Exception):
        load_or_train(pixels, labels, JudgeConfig(epochs=3), cache=tmp_path / "judges")


def test_a_large_data_set_is_judged_by_a_part_that_is_loaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset("digits", split="train")
    monkeypatch.setattr(judging, "MOST_BYTES", 400 * 64)
    part = judging.judged_part(dataset, 1, (8, 8))
    assert (len(part), len(judging.judged_part(part, 1, (8, 8)))) == (400, 400)
    given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def noted(pixels: torch.Tensor, labels: torch.Tensor, *_: object, **__: object) -> judging.Judge:
        given.append((pixels, labels))
        return judging.Judge(1, 10)

    monkeypatch.setattr(judging, "load_or_train", noted)

    def load(index: int, at_least: int) -> torch.Tensor:
        if index == 0:
            raise CorruptImage("0.png")
        return type(part).load_reduced(part, index, at_least)

    monkeypatch.setattr(part, "load_reduced", load)
    judge_of(part, (8, 8), QUICK, cache=None)
    ((pixels, labels),) = given
    assert pixels.shape == (399, 1, 8, 8)
    assert torch.equal(labels, torch.from_numpy(part.labels[1:]))
    assert torch.equal(pixels[0], part.load(1))


def test_a_cache_that_cannot_be_written_costs_a_training_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    judge = load_or_train(*digits("train"), JudgeConfig(epochs=1), cache=tmp_path / "file" / "judges")
    assert not judge.training


def test_its_features_are_an_extractor_for_grey_images_too() -> None:
    dataset = load_dataset("digits", split="train")
    extractor = judge_extractor(judge_of(dataset, (8, 8), QUICK, cache=None))
    pixels, labels = digits("test")
    seen = extractor(pixels)
    assert seen.features.shape == (len(pixels), 128)
    assert seen.logits is not None
    assert (seen.logits.argmax(dim=1) == labels).float().mean() > 0.8
    again = judge_extractor(judge_of(dataset, (8, 8), QUICK, cache=None))
    assert extractor.fingerprint == again.fingerprint, "the same images and seed give the same judge"
    bare = ArrayDataset("bare", torch.zeros(2, 1, 8, 8, dtype=torch.uint8), None)
    with pytest.raises(ValueError, match="bare has no labels"):
        judge_of(bare, (8, 8), cache=None)


def test_real_images_are_recognised_and_unlabelled_ones_not_measured(tmp_path: Path) -> None:
    (train, labels), (test, _) = digits("train"), digits("test")
    subject = SamplesAndData(images.to_float(test), train, test, labels, cache=tmp_path)
    found = {metric.name: metric.value for metric in Recognisable().measure(subject)}
    assert found["sample_confident_share"] == found["real_confident_share"]
    assert 0.02 < found["class_share_min"] <= 0.1
    assert found["class_share_min_real"] == found["class_share_min"], "of the same images"
    with pytest.raises(NotMeasured):
        list(Recognisable().measure(SamplesAndData(images.to_float(test), train, test)))


@pytest.mark.parametrize(("count", "epochs"), [(2, 4), (8, 1), (5, 4)])
def test_a_judge_of_very_few_images_is_trained(count: int, epochs: int) -> None:
    pixels, labels = digits("train")
    assert not train_judge(pixels[:count], labels[:count], JudgeConfig(epochs)).training
    with pytest.raises(ValueError, match="at least 2 training images, not 1"):
        train_judge(pixels[:1], labels[:1])
