"""Linear probe: all protocols on data with known answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from mage import rng
from mage.data.datasets import ArrayDataset
from mage.data.loaders import TrainLoader
from mage.data.transforms import TransformConfig
from mage.evaluation.classification import accuracies
from mage.evaluation.features import Features, extract_features
from mage.evaluation.lars_probe import LarsConfig, lars_optimizer, lars_probe, lars_probe_on_crops, learning_rate
from mage.evaluation.linear_head import fit_ridge
from mage.evaluation.linear_probe import lbfgs_probe, linear_probe
from mage.nn.backbones import PooledFeatures, efflite0
from mage.share import Share
from tests.reference import evaluation as reference

PROTOCOLS = ("lars", "lbfgs")


def separable(count: int, name: str, classes: int = 6) -> Features:
    labels = torch.randint(classes, (count,), generator=rng.generator(0, name, "labels"))
    noise = torch.randn(count, 16, generator=rng.generator(0, name, "noise"))
    return Features(nn.functional.one_hot(labels, 16).float() * 20 + noise, labels)


def meaningless(count: int, name: str) -> Features:
    return Features(torch.randn(count, 16, generator=rng.generator(1, name)), separable(count, name, 4).labels)


@pytest.fixture(scope="module")
def digits() -> tuple[Features, Features]:
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=rng.generator(0, "digits"))
    pixels, labels = torch.from_numpy(bunch.data).float()[order], torch.from_numpy(bunch.target).long()[order]
    return Features(pixels[:1400], labels[:1400]), Features(pixels[1400:], labels[1400:])


@pytest.mark.parametrize("adapt", [True, False])
def test_lars_agrees_with_plain_loops(adapt: bool) -> None:
    """Adaptation on the weight matrix, plain momentum on the bias; neither decays."""
    head = nn.Linear(3, 2)
    parameter = head.weight if adapt else head.bias
    with torch.no_grad():
        parameter.copy_(torch.randn(parameter.shape, generator=rng.generator(0)))
    before = parameter.flatten().tolist()
    rates = [0.0, 0.3, 1.6, 0.9]
    gradients = torch.randn(4, *parameter.shape, generator=rng.generator(1))
    optimizer = lars_optimizer(head, LarsConfig())
    for rate, gradient in zip(rates, gradients, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        parameter.grad = gradient.clone()
        optimizer.step()
    expected = reference.lars_steps(
        before, gradients.flatten(1).tolist(), rates, momentum=0.9, trust_coefficient=0.001, adapt=adapt
    )
    assert before != pytest.approx(expected)
    torch.testing.assert_close(parameter.detach().flatten(), torch.tensor(expected), rtol=1e-5, atol=1e-7)


def test_learning_rate_warms_up_and_falls_to_nothing() -> None:
    config = LarsConfig()
    rates = [learning_rate(epoch, 1.6, config) for epoch in (0, 5, 10, 50, 90)]
    assert rates == pytest.approx([0, 0.8, 1.6, 0.8, 0])


def test_settings_are_the_published_ones() -> None:
    config = LarsConfig()
    assert (config.epochs, config.warmup_epochs, config.base_learning_rate, config.batch_size) == (90, 10, 0.1, 4096)
    train = separable(40, "train", classes=2)
    result = lars_probe(train, train, config=LarsConfig(epochs=1, warmup_epochs=0))
    assert result.settings["learning_rate"] == pytest.approx(0.1 * 10 / 256), "a small set is cut into four batches"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_separable_features_are_separated(protocol: str) -> None:
    config = LarsConfig(base_learning_rate=3.0)  # the published rate needs many more images
    result = linear_probe(separable(600, "train"), separable(300, "test"), protocol=protocol, lars=config)
    assert result.accuracy == 1
    assert result.top5 == 1
    assert result.protocol.startswith(protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_meaningless_features_give_chance(protocol: str) -> None:
    result = linear_probe(meaningless(1000, "train"), meaningless(2000, "test"), protocol=protocol)
    assert result.accuracy == pytest.approx(0.25, abs=0.05)


def test_raw_pixels_of_digits(digits: tuple[Features, Features]) -> None:
    assert lbfgs_probe(*digits).accuracy > 0.94


def test_pretrained_features_are_far_better_than_pixels_on_photographs() -> None:
    """Which of 16 places of two photographs a patch is from, under turns and changes of colour; chance is 1 / 16."""
    found = {}
    for name, describe in (("pixels", lambda x: x.flatten(1)), ("efflite0", PooledFeatures(efflite0(), size=64))):
        parts = [extract_features(describe, places(split), TransformConfig(size=(24, 24))) for split in ("a", "b")]
        found[name] = linear_probe(*parts, protocol="ridge").accuracy
    assert found["efflite0"] > 1.7 * found["pixels"]
    assert found["pixels"] > 0.0625


def places(half: str, each: int = 40) -> ArrayDataset:
    """Patches of a grid of places; the two halves of a place do not overlap."""
    patches, labels, random = [], [], rng.generator(0, half)
    for number, photo in enumerate(load_sample_images().images):
        pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1)
        for cell in range(8):
            region = pixels[:, cell // 4 * 213 : cell // 4 * 213 + 213, cell % 4 * 160 : cell % 4 * 160 + 160]
            region = region[:, :, :80] if half == "a" else region[:, :, 80:]
            for _ in range(each):
                top, left, turns = (int(torch.randint(most, (), generator=random)) for most in (165, 32, 4))
                gain = 0.6 + 0.8 * torch.rand(3, 1, 1, generator=random)
                patch = (region[:, top : top + 48, left : left + 48] * gain).clamp(0, 255).byte()
                patches.append(patch.rot90(turns, (1, 2)))
                labels.append(8 * number + cell)
    return ArrayDataset(half, torch.stack(patches), np.array(labels), tuple(map(str, range(16))))


def test_lars_reaches_logistic_regression_if_it_may_move_far_enough(
    digits: tuple[Features, Features], caplog: pytest.LogCaptureFixture
) -> None:
    result = linear_probe(*digits, protocol="lars", lars=LarsConfig(base_learning_rate=3.0))
    assert result.accuracy == pytest.approx(linear_probe(*digits, protocol="lbfgs").accuracy, abs=0.02)
    assert result.top5 > 0.98
    assert not caplog.records


def test_lars_warns_where_a_set_is_too_small_for_its_settings(
    digits: tuple[Features, Features], caplog: pytest.LogCaptureFixture
) -> None:
    assert linear_probe(*digits, protocol="lars").accuracy < 0.9
    assert "Use the lbfgs protocol" in caplog.text


def test_seed_decides_and_global_randomness_does_not(digits: tuple[Features, Features]) -> None:
    config = LarsConfig(epochs=2, warmup_epochs=0)
    results = []
    for global_seed, seed in ((0, 3), (1, 3), (0, 4)):
        torch.manual_seed(global_seed)
        results.append(linear_probe(*digits, protocol="lars", lars=config, seed=seed).accuracy)
    assert results[0] == results[1] != results[2]


def test_scale_and_offset_of_features_do_not_count(digits: tuple[Features, Features]) -> None:
    train, test = (Features(part.features[:300] * 1000 + 5000, part.labels[:300]) for part in digits)
    plain = tuple(Features(part.features[:300], part.labels[:300]) for part in digits)
    assert lbfgs_probe(train, test).accuracy == pytest.approx(lbfgs_probe(*plain).accuracy, abs=0.01)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_features_made_in_inference_mode_are_taken(protocol: str) -> None:
    with torch.inference_mode():
        train, test = (
            Features(part.features * 1, part.labels * 1) for part in (separable(60, "a"), separable(60, "b"))
        )
    config = LarsConfig(epochs=3, warmup_epochs=1)
    assert linear_probe(train, test, protocol=protocol, lars=config).accuracy > 0.1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_few_images_and_unseen_classes_are_no_obstacle(protocol: str) -> None:
    train = Features(torch.randn(3, 4, generator=rng.generator(0)), torch.tensor([0, 2, 2]))  # class 1 has no image
    test = Features(train.features, torch.tensor([0, 1, 2]))
    result = linear_probe(train, test, protocol=protocol)
    assert result.accuracy <= 2 / 3
    assert result.top5 == 1


def test_top_5_counts_the_five_best() -> None:
    scores = torch.arange(10.0).repeat(3, 1)
    assert accuracies(scores, torch.tensor([9, 5, 4])) == pytest.approx((1 / 3, 2 / 3))


def test_sets_that_do_not_fit_are_refused() -> None:
    train = separable(50, "train")
    with pytest.raises(ValueError, match="16 and 4 numbers"):
        linear_probe(train, Features(train.features[:, :4], train.labels))
    with pytest.raises(ValueError, match="single class"):
        linear_probe(Features(train.features, torch.full_like(train.labels, 3)), train)
    with pytest.raises(ValueError, match="class 9, which no training image has"):
        linear_probe(train, Features(train.features, torch.full_like(train.labels, 9)))
    with pytest.raises(ValueError, match="at least one"):
        linear_probe(train, Features(train.features[:0], train.labels[:0]))
    with pytest.raises(ValueError, match='"lbfgs" or "ridge"'):
        linear_probe(train, train, protocol="svm")


def bright_squares(count: int, name: str) -> ArrayDataset:
    """Grey images of 8 x 8 pixels; the class is the brightness."""
    labels = torch.arange(count) % 3
    noise = torch.randint(40, (count, 1, 8, 8), generator=rng.generator(0, name))
    pixels = (labels[:, None, None, None] * 100 + noise).to(torch.uint8)
    return ArrayDataset("squares", pixels, labels.numpy(), ("dark", "grey", "bright"))


def test_random_crops_are_new_in_every_epoch() -> None:
    train, test = bright_squares(48, "train"), bright_squares(30, "test")
    measured = extract_features(lambda pixels: pixels, test, TransformConfig(size=(4, 4)))
    sizes: list[int] = []
    counted: list[int] = []

    def describe(pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return pixels.flatten(1)

    result = lars_probe_on_crops(
        describe, train, measured, TransformConfig(size=(4, 4), augmentation="crop_flip", interpolation="bicubic"),
        config=LarsConfig(epochs=40, warmup_epochs=4, base_learning_rate=100.0), images_at_once=5,
        on_images=counted.append,
    )  # fmt: skip
    assert result.accuracy > 0.9
    assert result.protocol == "lars_40ep"
    assert sum(counted) == 40 * 48
    assert max(sizes) == 5, "no more images at once than asked for"


def test_a_crop_of_one_image_differs_between_epochs() -> None:
    train = bright_squares(6, "train")
    train.array[1:] = 0  # only image 0 is not black, so that its crops can be told from the others'
    train.array[0] = torch.arange(64).view(1, 8, 8).to(torch.uint8) + 10
    crops: list[Tensor] = []

    def describe(pixels: Tensor) -> Tensor:
        crops.extend(pixel for pixel in pixels if pixel.sum() > 0)
        return pixels.flatten(1)

    lars_probe_on_crops(
        describe, train, Features(torch.rand(3, 16), torch.arange(3)), TransformConfig((4, 4), "crop_flip"),
        config=LarsConfig(epochs=8, warmup_epochs=1),
    )  # fmt: skip
    assert len(crops) == 8, "once per epoch"
    assert len({tuple(crop.flatten().tolist()) for crop in crops}) == 8, "each epoch shows another part"


def test_random_crops_need_labels() -> None:
    train = ArrayDataset("squares", bright_squares(8, "a").array, None, ())
    measured = Features(torch.rand(4, 16), torch.arange(4))
    with pytest.raises(ValueError, match="no labels"):
        lars_probe_on_crops(lambda pixels: pixels, train, measured, TransformConfig(size=(4, 4)), config=LarsConfig())


def test_random_crops_need_comparable_sets() -> None:
    train = bright_squares(8, "a")
    with pytest.raises(ValueError, match="class 7, which no training image has"):
        lars_probe_on_crops(
            lambda pixels: pixels.flatten(1), train, Features(torch.rand(4, 16), torch.tensor([0, 1, 2, 7])),
            TransformConfig(size=(4, 4)), config=LarsConfig(epochs=1),
        )  # fmt: skip


@pytest.mark.parametrize("classes", [2, 10])
def test_ridge_scores_are_those_of_scikit_learn_with_an_intercept(
    digits: tuple[Features, Features], classes: int
) -> None:
    train, test = (Features(part.features, part.labels.remainder(classes)) for part in digits)
    fitted = fit_ridge(train)
    head = fitted.head
    x, queries = (((part.features - head.mean) / head.deviation).double().numpy() for part in (train, test))
    scatter = np.cov(x.T, bias=True) * len(x)
    oracle = Ridge(alpha=fitted.settings["penalty"] * float(np.linalg.eigvalsh(scatter).mean()))
    expected = oracle.fit(x, np.eye(classes)[train.labels.numpy()]).predict(queries)
    np.testing.assert_allclose(head(test.features).numpy(), expected, atol=2e-5)
    result = linear_probe(train, test, protocol="ridge")
    assert result.protocol == "ridge"
    assert result.accuracy == pytest.approx(float((expected.argmax(axis=1) == test.labels.numpy()).mean()))


def test_ridge_tells_a_rare_class_from_the_rest(digits: tuple[Features, Features]) -> None:
    """One digit in ten is a one: without an intercept the line between the two lies where they are equally frequent."""
    train, test = (Features(part.features, (part.labels == 1).long()) for part in digits)
    result = linear_probe(train, test, protocol="ridge")
    assert result.accuracy > 0.97
    assert result.settings["held_out_accuracy"] > 0.95  # the penalty is chosen with the intercept, too


def test_ridge_never_names_a_class_without_images(digits: tuple[Features, Features]) -> None:
    train, test = (Features(part.features, part.labels + part.labels.ge(5).long()) for part in digits)
    scores = fit_ridge(train).head(test.features)
    assert scores[:, 5].eq(-torch.inf).all()
    assert scores[:, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]].isfinite().all()


def test_a_stopped_probe_goes_on_after_its_last_epoch(tmp_path: Path) -> None:
    train, test = bright_squares(24, "train"), bright_squares(12, "test")
    measured = extract_features(lambda pixels: pixels, test, TransformConfig(size=(4, 4)))
    crops, config = TransformConfig((4, 4), "crop_flip"), LarsConfig(epochs=4, warmup_epochs=1)
    seen = 0

    def describe(pixels: Tensor) -> Tensor:
        nonlocal seen
        seen += len(pixels)
        if seen > 60:
            raise KeyboardInterrupt
        return pixels.flatten(1)

    keep = tmp_path / "probe.pt"
    with pytest.raises(KeyboardInterrupt):
        lars_probe_on_crops(describe, train, measured, crops, config=config, keep=keep)
    again: list[int] = []
    resumed = lars_probe_on_crops(
        lambda pixels: pixels.flatten(1), train, measured, crops, config=config, keep=keep, on_images=again.append
    )
    assert sum(again) == 2 * 24, "the first two epochs are not repeated"
    whole = lars_probe_on_crops(lambda pixels: pixels.flatten(1), train, measured, crops, config=config)
    assert resumed == whole


def test_crops_are_read_in_parts_of_a_batch_which_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = bright_squares(48, "train"), bright_squares(12, "test")
    measured = extract_features(lambda pixels: pixels, test, TransformConfig(size=(4, 4)))
    crops, config = TransformConfig((4, 4), "crop_flip"), LarsConfig(epochs=3, warmup_epochs=1)
    shares: list[Share] = []

    def loader(*inputs: Any, share: Share, **settings: Any) -> TrainLoader:
        shares.append(share)
        return TrainLoader(*inputs, share=share, **settings)

    monkeypatch.setattr("mage.evaluation.lars_probe.TrainLoader", loader)
    found = [
        lars_probe_on_crops(
            lambda pixels: pixels.flatten(1), train, measured, crops, config=config, images_at_once=most
        )
        for most in (12, 5, 4, 1)
    ]
    assert [share.piece for share in shares] == [12, 6, 4, 1]
    assert all(each == found[0] for each in found)
    assert all(torch.equal(each.head.weight, found[0].head.weight) for each in found)
