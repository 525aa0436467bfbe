"""LPIPS on random weights in the layout of the published files, beside loops and the package lpips."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models import vgg16

from mage import rng
from mage.nn import lpips as ours
from mage.nn.lpips import BACKBONE, HEADS, LPIPS, load_lpips


@pytest.fixture(scope="module")
def backbone() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return vgg16(weights=None).state_dict()


@pytest.fixture(scope="module")
def heads() -> dict[str, Tensor]:
    widths = (64, 128, 256, 512, 512)
    random = rng.generator(0, "heads")
    return {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1, generator=random) for i, width in enumerate(widths)}


def pictures(name: str, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, 32, 48, generator=rng.generator(0, name))


def distance_from_the_paper(backbone: dict[str, Tensor], heads: dict[str, Tensor], a: Tensor, b: Tensor) -> float:
    """Layer by layer: convolutions by number, pooling after the 2nd, 4th, 7th and 10th, maps before each pooling."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    convolutions = [name[:-7] for name in backbone if name.startswith("features") and name.endswith("weight")]
    total = 0.0
    x, y = ((image * 2 - 1 - shift) / scale for image in (a, b))
    for index, name in enumerate(convolutions):
        weight, bias = backbone[f"{name}.weight"], backbone[f"{name}.bias"]
        x, y = (functional.relu(functional.conv2d(image, weight, bias, padding=1)) for image in (x, y))
        if index in (1, 3, 6, 9, 12):
            head = heads[f"lin{(1, 3, 6, 9, 12).index(index)}.model.1.weight"].view(-1, 1, 1)
            unit = [image / image.square().sum(dim=1, keepdim=True).sqrt() for image in (x, y)]
            total += ((unit[0] - unit[1]).square() * head).sum(dim=1).mean().item()
            x, y = functional.max_pool2d(x, 2), functional.max_pool2d(y, 2)
    return total


def test_distance_is_the_papers(backbone: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
    network, one, other = LPIPS(backbone, heads), pictures("one").requires_grad_(), pictures("other")
    found = network(one, other)
    assert found.item() == pytest.approx(distance_from_the_paper(backbone, heads, one.detach(), other), rel=1e-3)
    assert network(other, other).item() == 0
    found.backward()
    assert one.grad is not None
    assert one.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in network.train().parameters())
    grey, other_grey = pictures("one", 1), pictures("other", 1)
    colour = network(grey.expand(-1, 3, -1, -1), other_grey.expand(-1, 3, -1, -1))
    assert network(grey, other_grey).item() == pytest.approx(colour.item())


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")  # the package calls torchvision in an old way
def test_the_package_lpips_agrees(backbone: dict[str, Tensor], tmp_path: Path) -> None:
    package = pytest.importorskip("lpips")
    torch.save(backbone, tmp_path / BACKBONE)
    network = load_lpips(tmp_path)  # its channel weights come from the package
    oracle = package.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    features = vgg16(weights=None)
    features.load_state_dict(backbone)
    for number, cut in enumerate(((0, 4), (4, 9), (9, 16), (16, 23), (23, 30)), start=1):
        for index in range(*cut):
            oracle.net.get_submodule(f"slice{number}.{index}").load_state_dict(features.features[index].state_dict())
    one, other = pictures("one"), pictures("other")
    with torch.no_grad():
        expected = oracle(one, other, normalize=True).mean().item()
    assert network(one, other).item() == pytest.approx(expected, rel=1e-4)


def test_missing_and_foreign_files_are_named(
    backbone: dict[str, Tensor], heads: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(ValueError, match=r"vgg16-397923af\.pth is missing: download"):
        load_lpips()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(backbone, folder / BACKBONE)
    monkeypatch.setattr(ours, "_packaged_heads", list)
    with pytest.raises(ValueError, match="pip install lpips"):
        load_lpips()
    torch.save({"lin0.model.1.weight": torch.zeros(1, 3, 1, 1)}, folder / HEADS)
    with pytest.raises(ValueError, match="are not weights"):
        load_lpips()
    torch.save(heads, folder / HEADS)
    assert isinstance(load_lpips(folder / BACKBONE), LPIPS)
    (folder / BACKBONE).write_bytes(b"<html>the server is busy</html>")
    with pytest.raises(ValueError, match="are not weights"):
        load_lpips()
    torch.save({"x": torch.zeros(1)}, folder / BACKBONE)
    with pytest.raises(ValueError, match="are not weights"):
        load_lpips()
