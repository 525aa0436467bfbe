"""The verdict on a tokenizer: right numbers for a codebook known by heart, and warnings where they are due."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mage
from mage import images, runs
from mage.data.datasets import ArrayDataset, load_dataset
from mage.evaluation.extractors import Extractor, Seen
from mage.evaluation.tokenizer import evaluate_tokenizer, reconstruction_quality
from mage.evaluation.tokenizer_metrics import TokenizerProtocol
from mage.recipes import named
from tests.reference.launches import quiet


class FourLevels:
    """Each 4 x 4 patch is its mean in four levels."""

    channels, image_size, grid, num_codes = 1, (8, 8), (2, 2), 4

    def encode(self, pictures: Tensor) -> Tensor:
        return (torch.nn.functional.avg_pool2d(pictures, 4)[:, 0] * 3.999).long()

    def decode(self, ids: Tensor) -> Tensor:
        return (ids[:, None].float() / 3).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)

    def fingerprint(self) -> str:
        return "four levels"


def patches(count: int = 64) -> ArrayDataset:
    """Images that the four levels say exactly; the label is the level of the first patch."""
    ids = torch.randint(0, 4, (count, 2, 2), generator=torch.Generator().manual_seed(0))
    return ArrayDataset("patches", images.to_uint8(FourLevels().decode(ids)), ids[:, 0, 0].numpy(), tuple("abcd"))


def test_what_is_exact_is_found_exact() -> None:
    model = mage.Mage(FourLevels(), None, precision="float32", device="cpu")
    every_other = Extractor("pixels", "pixels", lambda x: Seen(x[:, 0].flatten(1)[:, ::2].float(), None))
    protocol = TokenizerProtocol(
        (every_other,), "test", perceptual=torch.nn.L1Loss(), perceptual_name="l1", train=patches(200), batch_size=10
    )
    quality = evaluate_tokenizer(model, patches(), protocol)
    found = quality.metrics
    assert set(found) == set(quality.protocols)
    assert quality.images == 64
    assert set(protocol.reference) == {"pixels"}, "the originals' statistics serve the next tokenizer"
    assert found["psnr_db"] == pytest.approx(100)
    assert found["ssim"] == pytest.approx(1)
    assert found["rfd_pixels_test64"] == pytest.approx(0, abs=1e-6)
    assert found["perceptual"] == pytest.approx(0, abs=1e-6)
    assert found["codes_used"] == 1
    assert found["position_entropy_bits"] == pytest.approx(2, abs=0.1)
    assert found["label_information_bits_max"] == pytest.approx(2, abs=0.15)  # the first token is the label
    assert found["histogram_probe_accuracy"] > 0.3
    assert sum(quality.details["codes_used"]["counts"]) == 64 * 4
    assert quality.picture is not None
    assert quality.warnings == []


def test_a_collapsed_codebook_is_named() -> None:
    class Blind(FourLevels):
        num_codes = 100

        def encode(self, pictures: Tensor) -> Tensor:
            return torch.zeros(len(pictures), 2, 2, dtype=torch.int64)

    quality = evaluate_tokenizer(mage.Mage(Blind(), None, precision="float32", device="cpu"), patches())
    assert any("collapsed" in warning for warning in quality.warnings)
    assert quality.metrics["position_entropy_bits"] == 0


def test_images_far_from_the_training_data_are_named(tmp_path: Path) -> None:
    runs.train_tokenizer(named("smoke"), quiet(tmp_path / "run"))
    model = runs.load_tokenizer(tmp_path / "run", precision="float32", device="cpu")
    assert model.notes["tokenizer"]["images"] == 64
    near = evaluate_tokenizer(model, load_dataset("digits", split="test"))
    assert near.metrics["divergence_from_training"] < 0.2
    assert not any("far from" in warning for warning in near.warnings)
    noise = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    far = evaluate_tokenizer(model, ArrayDataset("noise", 255 - noise // 8, None))
    assert far.metrics["divergence_from_training"] > near.metrics["divergence_from_training"]
    assert any("far from what the tokenizer was trained on" in warning for warning in far.warnings)


def test_a_first_look_agrees_with_the_whole_evaluation() -> None:
    dataset = patches()
    pixels = torch.stack([dataset.load(index) for index in range(len(dataset))]) // 2
    model = mage.Mage(FourLevels(), None, precision="float32", device="cpu")
    whole = evaluate_tokenizer(model, ArrayDataset("dark", pixels, None)).metrics
    look = reconstruction_quality(FourLevels(), pixels).metrics
    assert {"psnr_db", "ssim", "codes_used", "codebook_perplexity"} <= set(look)
    for name, value in look.items():
        assert value == pytest.approx(whole[name], rel=1e-6), name


def test_images_without_labels_tell_nothing_of_classes() -> None:
    labelled = patches()
    pixels = torch.stack([labelled.load(index) for index in range(len(labelled))])
    bare = ArrayDataset("bare", pixels, None)
    model = mage.Mage(FourLevels(), None, precision="float32", device="cpu")
    quality = evaluate_tokenizer(model, bare, TokenizerProtocol(train=bare))
    assert not any(name.startswith(("label_information", "histogram_probe")) for name in quality.metrics)
    assert quality.left_out == ["histogram_probe_accuracy: the images have no labels"]


def test_every_distance_of_too_few_images_is_warned_of() -> None:
    networks = tuple(
        Extractor(name, name, lambda x: Seen(x[:, 0].flatten(1).float(), None)) for name in ("first", "second")
    )
    model = mage.Mage(FourLevels(), None, precision="float32", device="cpu")
    quality = evaluate_tokenizer(model, patches(20), TokenizerProtocol(networks, "test"))
    (warning,) = quality.warnings
    assert "rfd_first_test20" in warning
    assert "rfd_second_test20" in warning


def test_distances_of_pixels_by_hand() -> None:
    class Dark(FourLevels):
        """Says that every image is black."""

        def encode(self, pictures: Tensor) -> Tensor:
            return torch.zeros(len(pictures), 2, 2, dtype=torch.int64)

    grey = ArrayDataset("grey", torch.full((3, 1, 8, 8), 51, dtype=torch.uint8), None)
    protocol = TokenizerProtocol(perceptual=torch.nn.MSELoss(), perceptual_name="squares")
    quality = evaluate_tokenizer(mage.Mage(Dark(), None, precision="float32", device="cpu"), grey, protocol)
    assert quality.metrics["absolute_error"] == pytest.approx(0.2)
    assert quality.metrics["psnr_db"] == pytest.approx(-10 * math.log10(0.04))
    assert quality.metrics["perceptual"] == pytest.approx(0.04)
    assert quality.protocols["perceptual"] == "squares"
    assert quality.metrics["perplexity_share"] == pytest.approx(1 / 4)
