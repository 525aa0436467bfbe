"""Perceptual loss: distance of images in a frozen classifier's features (Johnson et al. 2016; used by MaskGIT)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mage.nn.backbones import StageFeatures, TimmMaps, efflite0
from mage.nn.lpips import load_lpips


class PerceptualLoss(nn.Module):
    """Mean squared distance of channel-normalised feature maps, averaged over the network's stages.

    network: images in [0, 1] -> list of feature maps, such as mage.nn.backbones.StageFeatures.
    size: images are resized to this many pixels per side first (0: as they are).
    """

    def __init__(self, network: nn.Module, *, size: int = 64) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, images: Float[Tensor, "n c h w"], targets: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """Distance of `images` from `targets`; gradients reach `images` only."""
        image_maps = self._features(images)
        with torch.no_grad():
            target_maps = [_unit(maps) for maps in self._features(targets)]
        parts = [(_unit(a) - b).square().sum(dim=1).mean() for a, b in zip(image_maps, target_maps, strict=True)]
        return torch.stack(parts).mean()

    def _features(self, images: Tensor) -> list[Tensor]:
        images = images.float()
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if self.size and tuple(images.shape[-2:]) != (self.size, self.size):
            images = functional.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        with torch.autocast(images.device.type, enabled=False):
            maps: list[Tensor] = self.network(images)
            return maps


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features, dim=1, eps=1e-6)


def build_perceptual(name: str, *, channels: int = 3, weights: str = "", size: int = 64) -> nn.Module:
    """The distance named `efflite0`, `lpips-vgg` or `timm:NAME`: (images, targets) in [0, 1] -> a number.

    channels: of the images. weights: local file or folder (lpips-vgg, timm). Raises ValueError if they are missing, and
    for images that are neither grey nor RGB.
    """
    if channels not in (1, 3):
        raise ValueError(
            f"a perceptual loss takes grey or RGB images, not {channels} channels: --set tokenizer_loss.perceptual=0"
        )
    if name == "efflite0":
        return PerceptualLoss(StageFeatures(efflite0()), size=size)
    if name == "lpips-vgg":
        return load_lpips(weights)
    if name.startswith("timm:"):
        return PerceptualLoss(TimmMaps(name.removeprefix("timm:"), weights), size=size)
    raise ValueError(f"perceptual_network must be efflite0, lpips-vgg or timm:NAME, not {name!r}")
