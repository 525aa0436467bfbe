"""LPIPS: the distance of two images in VGG-16's features, weighted to match people's judgement (Zhang et al. 2018).

It needs two files: VGG-16's ImageNet weights as torchvision publishes them (`vgg16-397923af.pth`), and 7 kB of weights
for its channels (`vgg.pth`), which the packages lpips and torchmetrics include.

Letters: n images, c channels, H W pixels, d feature width, h w cells of a feature map.
"""

import importlib.util
import itertools
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import vgg16

BACKBONE, HEADS = "vgg16-397923af.pth", "vgg.pth"
_CUTS = (4, 9, 16, 23, 30)
_WIDTHS = (64, 128, 256, 512, 512)
_PACKAGED = {"lpips": "weights/v0.1", "torchmetrics": "functional/image/lpips_models"}


class LPIPS(nn.Module):
    """Frozen distance, differentiable with respect to its first argument."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        """backbone, heads: the contents of the two files."""
        super().__init__()
        network = vgg16(weights=None)
        network.load_state_dict(backbone)
        self.stages = nn.ModuleList(network.features[start:stop] for start, stop in itertools.pairwise((0, *_CUTS)))
        for stage in self.stages:
            for layer in stage.children():
                if isinstance(layer, nn.ReLU):
                    layer.inplace = False
        weights = [heads[f"lin{index}.model.1.weight"].view(-1) for index in range(len(_CUTS))]
        if tuple(len(weight) for weight in weights) != _WIDTHS:
            raise ValueError(f"LPIPS weights for VGG-16 have {_WIDTHS} channels, these {tuple(map(len, weights))}")
        self.heads = nn.ParameterList(weights)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "LPIPS":
        """Stay in eval mode: these weights are frozen."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "n c H W"], targets: Float[Tensor, "n c H W"]) -> Float[Tensor, ""]:
        """Mean distance of images in [0, 1], grey or RGB, of at least 16 pixels."""
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                maps_of_targets = self._features(targets)
            total = images.new_zeros((), dtype=torch.float32)
            for weight, a, b in zip(self.heads, self._features(images), maps_of_targets, strict=True):
                total = total + torch.einsum("ndhw,d->nhw", (a - b).square(), weight).mean()
            return total

    def _features(self, images: Float[Tensor, "n c H W"]) -> list[Float[Tensor, "n _d _h _w"]]:
        x = (images.float().expand(-1, 3, -1, -1) * 2 - 1 - self.shift) / self.scale
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(functional.normalize(x, dim=1, eps=1e-10))
        return maps


def load_lpips(path: str | Path = "") -> LPIPS:
    """LPIPS from a folder with its two files, or from the VGG-16 file; empty: PyTorch's cache.

    Raises ValueError that names a missing file and where to get it.
    """
    location = Path(path) if path else Path(torch.hub.get_dir()) / "checkpoints"
    folder, backbone = (location, location / BACKBONE) if location.suffix != ".pth" else (location.parent, location)
    if not backbone.is_file():
        raise ValueError(
            f"LPIPS needs VGG-16's weights, and {backbone} is missing: download "
            f"https://download.pytorch.org/models/{BACKBONE} into {folder}, or name its folder in perceptual_weights"
        )
    heads = next((place for place in (folder / HEADS, *_packaged_heads()) if place.is_file()), None)
    if heads is None:
        raise ValueError(f"LPIPS needs its channel weights: pip install lpips, or put its {HEADS} into {folder}")
    try:
        return LPIPS(*(torch.load(file, map_location="cpu", weights_only=True) for file in (backbone, heads)))
    except Exception as error:  # damaged files and web pages raise many types
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{backbone} and {heads} are not weights of VGG-16 and LPIPS: {reason}") from None


def _packaged_heads() -> list[Path]:
    specs = {name: importlib.util.find_spec(name) for name in _PACKAGED}
    packages = [(spec.submodule_search_locations, name) for name, spec in specs.items() if spec is not None]
    return [Path(root) / _PACKAGED[name] / HEADS for roots, name in packages for root in roots or []]
