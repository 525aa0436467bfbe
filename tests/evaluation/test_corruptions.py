"""Corruptions: each severity is worse than the one before, images stay images, official layouts are read."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from mage import images, rng
from mage.cli.main import main
from mage.data.datasets import ArrayDataset
from mage.data.transforms import TransformConfig
from mage.evaluation import distortions
from mage.evaluation.corruptions import KINDS, SEVERITIES, corrupt, ours
from mage.evaluation.robustness import (
    ALEXNET_ERROR,
    CorruptionResult,
    baseline_error,
    corruption_accuracy,
    official_corruption_accuracy,
    official_sets,
)
from tests.reference import corruptions as slow


def pictures(count: int, side: int, channels: int = 3) -> Tensor:
    """Bright blobs on dark ground, with edges and fine texture."""
    draws = torch.rand(count, 4, generator=rng.generator(0, side))
    place = (torch.arange(side) + 0.5) / side
    found = []
    for x, y, size, shade in draws.tolist():
        disk = ((place - x).square() + (place[:, None] - y).square()).sqrt() < 0.1 + 0.3 * size
        texture = 0.1 * torch.sin(2 * torch.pi * 6 * place) * torch.sin(2 * torch.pi * 4 * place[:, None])
        found.append(0.3 + 0.3 * shade * disk + texture)
    colours = torch.tensor([1.0, 0.8, 0.6, 0.9, 0.7])[:channels].view(-1, 1, 1)
    return torch.stack(found)[:, None] * colours


NOT_BY_SEVERITY = ("glass_blur", "frost", "fog", "elastic", "pixelate")
"""Kinds of which some official severity changes these pictures less than the one before, such as elastic's third."""


@pytest.mark.parametrize("side", [32, 160])
@pytest.mark.parametrize("kind", KINDS)
def test_severities_grow_where_the_official_ones_do(kind: str, side: int) -> None:
    """The mean squared change over some images."""
    clean = pictures(6, side)
    changes = []
    for severity in SEVERITIES:
        made = [corrupt(one, kind, severity, rng.generator(0, index)) for index, one in enumerate(clean)]
        assert all(0 <= float(one.min()) <= float(one.max()) <= 1 for one in made)
        changes.append(float((torch.stack(made) - clean).square().mean()))
    assert changes == sorted(changes) or kind in NOT_BY_SEVERITY
    assert changes[0] > 0
    assert changes[0] < changes[-1] or kind == "elastic"


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_channels_and_any_shape(kind: str, channels: int) -> None:
    image = pictures(1, 48, channels)[0, :, :, :40]
    assert corrupt(image, kind, 3, rng.generator(0)).shape == (channels, 48, 40)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_repeats_with_its_generator(kind: str) -> None:
    image = pictures(1, 32)[0]
    one, again, other = (corrupt(image, kind, 4, rng.generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    random = kind not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg")
    assert torch.equal(one, other) != random


def test_noise_has_the_strength_it_names() -> None:
    grey = torch.full((3, 64, 64), 0.5)
    small = corrupt(grey, "gaussian_noise", 3, rng.generator(0)) - grey
    assert float(small.std()) == pytest.approx(0.08, rel=0.05)
    shot = corrupt(grey, "shot_noise", 3, rng.generator(0))  # 100 photons of white: deviation sqrt(0.5 / 100)
    assert float(shot.std()) == pytest.approx(0.0707, rel=0.05)
    salt = corrupt(grey, "impulse_noise", 5, rng.generator(0))
    assert float((salt != 0.5).float().mean()) == pytest.approx(0.07, abs=0.01)
    assert set(salt.unique().tolist()) == {0.0, 0.5, 1.0}


def test_exact_corruptions() -> None:
    image = pictures(1, 32)[0]
    mean = image.mean(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(corrupt(image, "contrast", 2, rng.generator(0)), (image + mean) / 2)
    grey = torch.full((3, 32, 32), 0.4)
    torch.testing.assert_close(corrupt(grey, "brightness", 5, rng.generator(0)), torch.full((3, 32, 32), 0.7))
    for kind in (
        "defocus_blur",
        "motion_blur",
        "zoom_blur",
        "glass_blur",
        "elastic",
        "pixelate",
    ):  # no edges, no change
        torch.testing.assert_close(corrupt(grey, kind, 5, rng.generator(0)), grey)


def test_pixelate_and_jpeg_are_pillows_at_the_official_sizes() -> None:
    """At 32 pixels the cells are 32/30 to 32/20: 1.07 to 1.6 pixels."""
    for side, sizes, qualities in (
        (32, (30, 28, 27, 24, 20), (80, 65, 58, 50, 40)),
        (224, (134, 112, 89, 67, 56), (25, 18, 15, 10, 7)),
    ):
        clean = images.to_float(images.to_uint8(pictures(1, side)[0]))
        for severity, size, quality in zip(SEVERITIES, sizes, qualities, strict=True):
            small = images.to_pil(clean).resize((size, size), Image.Resampling.BOX)
            expected = images.to_float(images.from_pil(small.resize((side, side), Image.Resampling.BOX), 3))
            torch.testing.assert_close(corrupt(clean, "pixelate", severity, rng.generator(0)), expected)
            buffer = io.BytesIO()
            images.to_pil(clean).save(buffer, format="JPEG", quality=quality)
            expected = images.to_float(images.from_bytes(buffer.getvalue()))
            torch.testing.assert_close(corrupt(clean, "jpeg", severity, rng.generator(0)), expected)


def test_what_is_ours_stands_beside_the_number() -> None:
    assert ours(("fog", "jpeg")) == ""
    assert ours(("fog", "frost")) == "ours: frost (made, not photographed)"
    assert ours(KINDS).count("(") == 3


def test_corrupted_images_are_truncated_to_8_bits_as_the_official_files(shades: ArrayDataset) -> None:
    seen: list[Tensor] = []

    def look(pixels: Tensor) -> Tensor:
        seen.append(pixels * 255)
        return bright_or_dark(pixels)

    corruption_accuracy(look, shades, TransformConfig(size=(32, 32)), kinds=("brightness",), severities=(1,))
    dark = seen[1].flatten()[0].item()
    assert dark == pytest.approx(112), "100 + 12.75 levels"


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ValueError, match="no corruption 'rain'"):
        corrupt(torch.zeros(3, 8, 8), "rain", 1, rng.generator(0))
    with pytest.raises(ValueError, match="severity 6"):
        corrupt(torch.zeros(3, 8, 8), "fog", 6, rng.generator(0))


def bright_or_dark(pixels: Tensor) -> Tensor:
    """A classifier whose truth is known: class 1 where the mean is above one half."""
    mean = pixels.mean(dim=(1, 2, 3))
    return torch.stack([0.5 - mean, mean - 0.5], dim=1)


@pytest.fixture(scope="module")
def shades() -> ArrayDataset:
    array = torch.cat([torch.full((20, 3, 32, 32), 100, dtype=torch.uint8), torch.full((20, 3, 32, 32), 180).byte()])
    return ArrayDataset("shades", array, np.repeat(np.arange(2), 20), ("dark", "bright"))


def test_accuracy_falls_where_the_corruption_touches_what_counts(shades: ArrayDataset) -> None:
    """Brightness moves the dark ones (0.39) over the line from severity 3 on (+0.15); contrast moves none."""
    result = corruption_accuracy(
        bright_or_dark, shades, TransformConfig(size=(32, 32)), kinds=("brightness", "contrast")
    )
    assert result.clean == 1.0
    assert result.accuracy["brightness"] == {1: 1.0, 2: 1.0, 3: 0.5, 4: 0.5, 5: 0.5}
    assert result.per_kind == {"brightness": pytest.approx(0.7), "contrast": 1.0}
    assert result.mean == pytest.approx(0.85)


def test_mean_corruption_error_is_relative_to_the_baseline() -> None:
    result = CorruptionResult(0.9, {"fog": {1: 0.8, 2: 0.6}, "jpeg": {1: 0.9, 2: 0.7}})
    assert result.mean_corruption_error({"fog": 0.6, "jpeg": 0.4}) == pytest.approx((0.3 / 0.6 + 0.2 / 0.4) / 2)
    with pytest.raises(ValueError, match="no error for jpeg"):
        result.mean_corruption_error({"fog": 0.6})


def test_a_baseline_that_lacks_a_kind_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mage.load", None)
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"details": {"corruption_accuracy": {"per_kind": {"fog": 0.25}}}}))
    with pytest.raises(SystemExit):
        main(["robustness", "--model", "digits", "--data", "digits", "--baseline", str(path)])
    assert "the baseline has no error for gaussian_noise" in capsys.readouterr().err


def test_baselines_by_name_and_file(tmp_path: Path) -> None:
    assert baseline_error("alexnet", official=True) is ALEXNET_ERROR
    with pytest.raises(ValueError, match=r"official ImageNet-C: give its folder with --official"):
        baseline_error("alexnet", official=False)
    assert sum(ALEXNET_ERROR.values()) / 15 == pytest.approx(0.789, abs=1e-3)
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"details": {"corruption_accuracy": {"per_kind": {"fog": 0.25}}}}))
    assert baseline_error(str(path), official=False) == {"fog": 0.75}
    with pytest.raises(ValueError, match="neither alexnet nor a result"):
        baseline_error(str(tmp_path / "none.json"), official=True)


def test_official_arrays_and_folders(shades: ArrayDataset, tmp_path: Path) -> None:
    """fog: severity s has s of ten images of each class made wrong."""
    arrays, folders = tmp_path / "arrays", tmp_path / "folders"
    arrays.mkdir()
    labels = np.repeat(np.arange(2), 10)
    parts = []
    for severity in SEVERITIES:
        values = np.where(labels == 0, 100, 180)
        values[:severity], values[10 : 10 + severity] = 180, 100
        parts.append(np.broadcast_to(values[:, None, None, None], (20, 32, 32, 3)).astype(np.uint8))
        for index, (value, label) in enumerate(zip(values, labels, strict=True)):
            path = folders / "fog" / str(severity) / ("dark", "bright")[label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.save_png(path, torch.full((3, 32, 32), float(value) / 255))
    np.save(arrays / "fog.npy", np.concatenate(parts))
    np.save(arrays / "labels.npy", np.tile(labels, 5))
    transform = TransformConfig(size=(32, 32))
    expected = {"fog": {severity: pytest.approx(1 - severity / 10) for severity in SEVERITIES}}
    assert official_corruption_accuracy(bright_or_dark, shades, arrays, transform).accuracy == expected
    with pytest.raises(ValueError, match="other classes"):  # of folders the order is by name
        official_corruption_accuracy(bright_or_dark, shades, folders, transform)
    by_name = ArrayDataset("by-name", shades.array, 1 - shades.labels, ("bright", "dark"))
    found = official_corruption_accuracy(lambda x: bright_or_dark(x).flip(1), by_name, folders, transform)
    assert found.accuracy == expected
    with pytest.raises(ValueError, match="holds no corruption"):
        official_corruption_accuracy(bright_or_dark, shades, tmp_path, transform)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("fog", np.zeros((20, 4, 4, 3)), r"fog\.npy as an array of integers: it holds float64"),
        ("fog", np.zeros((20, 4, 4, 3), np.int64), r"fog\.npy holds int64 .*has uint8 \(n, h, w, c\)"),
        ("fog", np.zeros((20, 4, 4), np.uint8), r"fog\.npy holds uint8 \(20, 4, 4\); CIFAR-10-C has"),
        ("fog", np.zeros((21, 4, 4, 3), np.uint8), r"the images of 5 severities one after the other"),
        ("fog", np.array([{}] * 20), r"cannot read .*fog\.npy as an array"),
        ("labels", np.zeros(19, np.int64), r"labels\.npy has the shape \(19,\); fog\.npy has 20 images"),
        ("labels", np.full(20, 2), r"labels\.npy run from 2 to 2, of 2 classes"),
        ("labels", None, r"no such file: .*labels\.npy"),
    ],
)
def test_what_is_no_official_array_is_one_sentence(
    name: str, array: np.ndarray | None, message: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "fog.npy", np.zeros((20, 4, 4, 3), np.uint8))
    np.save(tmp_path / "labels.npy", np.zeros(20, np.uint8))  # of any integer type
    assert len(list(official_sets(tmp_path, ("dark", "bright")))) == len(SEVERITIES)
    if array is None:
        (tmp_path / "labels.npy").unlink()
    else:
        np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(ValueError, match=message):
        list(official_sets(tmp_path, ("dark", "bright")))


def test_an_official_array_that_claims_more_than_it_holds_is_refused_unread(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.zeros(20, np.int64))
    with open(tmp_path / "fog.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**7, 32, 32, 3)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match="claims more values than its 0 bytes hold"):
        list(official_sets(tmp_path, ("dark", "bright")))


@pytest.mark.parametrize("side", [32, 224])
def test_corruptions_are_put_together_as_in_the_public_code(side: int) -> None:
    """Formulas on slow or other parts, with the same draws; constants of severities 2 and 5, at either size."""
    clean = images.to_float(images.to_uint8(pictures(1, side)[0]))
    official = {
        32: {
            "fog": ((0.5, 3), (1.5, 1.75)), "glass_blur": ((0.25, 1, 1), (0.4, 1, 2)),
            "motion_blur": ((6, 1.5), (9, 2.5)),
            "snow": ((0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)),
            "elastic": ((1.6, 6.4, 2.24), (3.2, 0.96, 0.96)),
        },
        224: {
            "fog": ((2, 2), (3, 1.4)), "glass_blur": ((0.9, 2, 1), (1.5, 4, 2)),
            "motion_blur": ((15, 5), (20, 15)),
            "snow": ((0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)),
            "elastic": ((488, 19.52, 48.8), (29.28, 2.44, 4.88)),
        },
    }[side]  # fmt: skip
    for kind, constants in official.items():
        for severity, values in zip((2, 5), constants, strict=True):
            expected = PUBLIC[kind](clean, values, rng.generator(0, kind)).clip(0, 1)
            found = corrupt(clean, kind, severity, rng.generator(0, kind)).double().numpy()
            np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=f"{kind} {severity}")


def _fog(clean: Tensor, values: tuple[float, ...], generator: torch.Generator) -> np.ndarray:
    side = 2 ** int(np.ceil(np.log2(clean.shape[1])))
    field = distortions.plasma(side, values[1], generator).numpy()[: clean.shape[1], : clean.shape[2]]
    x, top = clean.double().numpy(), float(clean.max())
    return (x + values[0] * field) * top / (top + values[0])


def _glass(clean: Tensor, values: tuple[float, ...], generator: torch.Generator) -> np.ndarray:
    sigma, delta, times = values
    x = ndimage.gaussian_filter(clean.double().numpy(), (0, sigma, sigma), mode="nearest", truncate=4)
    for _ in range(int(times)):
        move = torch.randint(-int(delta), int(delta), (2, *clean.shape[1:]), generator=generator).numpy()
        x = slow.shuffled(x.transpose(1, 2, 0), move, int(delta)).transpose(2, 0, 1)
    return np.asarray(ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest", truncate=4))


def _motion(clean: Tensor, values: tuple[float, ...], generator: torch.Generator) -> np.ndarray:
    angle = -45 + 90 * float(torch.rand((), generator=generator))
    return distortions.motion(clean, *values, angle).double().numpy()


def _snow(clean: Tensor, values: tuple[float, ...], generator: torch.Generator) -> np.ndarray:
    mean, deviation, zoom, threshold, radius, sigma, left = values
    noise = mean + deviation * torch.randn(1, *clean.shape[1:], generator=generator)
    layer = distortions.zoomed(noise, zoom)
    layer[layer < threshold] = 0
    angle = -135 + 90 * float(torch.rand((), generator=generator))
    layer = distortions.motion(layer.clip(0, 1), radius, sigma, angle).double().numpy()
    x = clean.double().numpy()
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    return left * x + (1 - left) * np.maximum(x, grey * 1.5 + 0.5) + layer + np.rot90(layer, 2, (1, 2))


def _elastic(clean: Tensor, values: tuple[float, ...], generator: torch.Generator) -> np.ndarray:
    alpha, sigma, corner = values
    corners = corner * (2 * torch.rand(3, 2, generator=generator).double().numpy() - 1)
    field = 2 * torch.rand(2, *clean.shape[1:], generator=generator).double().numpy() - 1
    move = alpha * ndimage.gaussian_filter(field, (0, sigma, sigma), mode="reflect", truncate=3)
    moved = [slow.sheared(band, corners) for band in clean.double().numpy()]
    return np.stack([slow.displaced(band, move) for band in moved])


PUBLIC = {"fog": _fog, "glass_blur": _glass, "motion_blur": _motion, "snow": _snow, "elastic": _elastic}
