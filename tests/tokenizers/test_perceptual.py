"""The perceptual loss, with a network small enough to be followed by hand."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mage import rng
from mage.nn.backbones import TimmMaps
from mage.tokenizers.perceptual import PerceptualLoss, build_perceptual


class TwoStages(nn.Module):
    """Colours, doubled, and 2 x 2 means of differences of colours; remembers what it saw."""

    def forward(self, images: Tensor) -> list[Tensor]:
        self.seen = images
        coarse = nn.functional.avg_pool2d(images, 2)
        return [2 * images, torch.stack([coarse[:, 0] - coarse[:, 1], coarse[:, 1] - 2 * coarse[:, 2]], dim=1)]


def pictures(name: str, channels: int = 3, side: int = 4) -> Tensor:
    return torch.rand(2, channels, side, side, generator=rng.generator(0, name))


def distance_by_loops(first: list[Tensor], second: list[Tensor]) -> float:
    stages = []
    for one, other in zip(first, second, strict=True):
        terms = []
        for a, b in zip(one.permute(0, 2, 3, 1).flatten(0, 2), other.permute(0, 2, 3, 1).flatten(0, 2), strict=True):
            x, y = a.tolist(), b.tolist()
            long, wide = math.sqrt(sum(value**2 for value in x)), math.sqrt(sum(value**2 for value in y))
            terms.append(sum((p / long - q / wide) ** 2 for p, q in zip(x, y, strict=True)))
        stages.append(sum(terms) / len(terms))
    return sum(stages) / len(stages)


def test_equal_images_have_no_distance_and_others_that_of_plain_loops() -> None:
    network = TwoStages()
    loss = PerceptualLoss(network, size=0)
    one, other = pictures("one"), pictures("other")
    assert loss(one, one).item() == 0
    assert loss(one, other).item() == pytest.approx(distance_by_loops(network(one), network(other)), rel=1e-4)


def test_the_strength_of_features_does_not_count() -> None:
    loss = PerceptualLoss(TwoStages(), size=0)
    one, other = pictures("one"), pictures("other")
    assert loss(one / 2, other).item() == pytest.approx(loss(one, other).item(), rel=1e-4)


def test_gradients_reach_the_first_argument_only() -> None:
    one, other = pictures("one").requires_grad_(), pictures("other").requires_grad_()
    PerceptualLoss(TwoStages(), size=0)(one, other).backward()
    assert one.grad is not None
    assert one.grad.abs().max() > 0
    assert other.grad is None


def test_grey_images_are_shown_in_three_equal_channels() -> None:
    network = TwoStages()
    loss = PerceptualLoss(network, size=0)
    one, other = pictures("one", 1), pictures("other", 1)
    found = loss(one, other)
    assert torch.equal(network.seen, other.expand(-1, 3, -1, -1))
    assert torch.equal(found, loss(one.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(("size", "side"), [(0, 4), (8, 8), (2, 2), (4, 4)])
def test_images_are_resized_to_what_the_network_likes(size: int, side: int) -> None:
    network = TwoStages()
    PerceptualLoss(network, size=size)(pictures("one"), pictures("other"))
    assert network.seen.shape == (2, 3, side, side)


def test_the_network_sees_single_precision_under_autocast() -> None:
    network = TwoStages()
    with torch.autocast("cpu", torch.bfloat16):
        found = PerceptualLoss(network)(pictures("one").bfloat16(), pictures("other").bfloat16())
    assert network.seen.dtype == torch.float32
    assert found.dtype == torch.float32


def test_maps_of_a_timm_model_are_those_of_its_whole_weight_file(tmp_path: Path) -> None:
    """The file holds the classifier, too, as downloaded ones do."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        whole = timm.create_model("test_resnet").eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    network = TimmMaps("test_resnet", str(tmp_path / "weights.pth"))
    pictures = torch.rand(2, 3, 64, 64, generator=rng.generator(0))
    with torch.no_grad():
        found = network(pictures)[-1]
        expected = whole.forward_features((pictures - network.mean) / network.deviation)
    torch.testing.assert_close(found, expected)
    torch.save(network.network.state_dict(), tmp_path / "features.pth")
    again = TimmMaps("test_resnet", str(tmp_path / "features.pth"))
    torch.testing.assert_close(again(pictures)[-1], found, msg="the file may leave out the classifier")
    foreign = {f"backbone.{name}": tensor for name, tensor in whole.state_dict().items()}
    torch.save(foreign, tmp_path / "foreign.pth")
    for name in ("missing.pth", "foreign.pth"):
        with pytest.raises(ValueError, match="timm cannot load features"):
            TimmMaps("test_resnet", str(tmp_path / name))


def test_images_that_are_neither_grey_nor_rgb_are_refused() -> None:
    with pytest.raises(ValueError, match="takes grey or RGB images, not 12 channels"):
        build_perceptual("efflite0", channels=12)
