"""Perceptual loss: compare images by what a frozen classifier sees (Johnson et al. 2016; used by MaskGIT)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


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
        seen = self._features(images)
        with torch.no_grad():
            wanted = [_unit(maps) for maps in self._features(targets)]
        parts = [(_unit(a) - b).square().sum(dim=1).mean() for a, b in zip(seen, wanted, strict=True)]
        return torch.stack(parts).mean()

    def _features(self, images: Tensor) -> list[Tensor]:
        images = images.float()
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if self.size and tuple(images.shape[-2:]) != (self.size, self.size):
            images = functional.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        with torch.autocast(images.device.type, enabled=False):
            return self.network(images)  # type: ignore[no-any-return]


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features, dim=1, eps=1e-6)
