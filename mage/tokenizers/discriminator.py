"""Discriminators: networks that tell real images from reconstructions, and the adversarial losses.

`patch` is taming's PatchGAN (Isola et al. 2017; Esser et al. 2021), which scores patches; `style` is the residual
network with blurred downsampling of StyleGAN2 (Karras et al. 2020) that MaskGIT's tokenizer was trained with.

Letters: n images, c channels, H W pixels, h w cells of a map of scores.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mage import distributed
from mage.nn.norms import GroupNorm, in_fast_layout
from mage.nn.precision import in_full

GanLoss = Literal["hinge", "non_saturating"]


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of a discriminator; the defaults are taming's."""

    kind: Literal["patch", "style"] = "patch"
    """patch: one score per patch. style: one score per image."""
    width: int = 64
    """Channels of the first layer; they double with each halving of the resolution, up to 8 times as many."""
    levels: int = 3
    """Number of times the resolution is halved."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.levels < 1:
            raise ValueError(f"a discriminator needs positive width and levels, not {self.width} and {self.levels}")

    def level_width(self, level: int) -> int:
        """Channels after `level` halvings."""
        return self.width * min(1 << level, 8)


def build_discriminator(config: DiscriminatorConfig, channels: int, image_size: tuple[int, int]) -> nn.Module:
    """The network for images of this size: images (n, c, H, W) -> scores, larger is more real.

    Raises ValueError for images that are too small for its levels.
    """
    if min(image_size) < 2 ** (config.levels + 2):
        best = min(image_size).bit_length() - 3
        raise ValueError(
            f"a discriminator of {config.levels} levels needs images of {2 ** (config.levels + 2)} pixels, not "
            f"{image_size}; set discriminator.levels to {best}" + ("" if best > 0 else ", which is none: train without")
        )
    if config.kind == "patch":
        return PatchDiscriminator(config, channels)
    return StyleDiscriminator(config, channels, image_size)


class PatchDiscriminator(nn.Module):
    """PatchGAN: 4x4 convolutions, a map of scores (n, 1, h, w).

    GroupNorm replaces taming's BatchNorm: an image's score does not depend on its batch, so that real and reconstructed
    images can share one pass, which training on several processes needs.
    """

    def __init__(self, config: DiscriminatorConfig, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, config.width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for level in range(1, config.levels + 1):
            stride = 2 if level < config.levels else 1
            narrow, wide = config.level_width(level - 1), config.level_width(level)
            layers += [
                nn.Conv2d(narrow, wide, 4, stride, 1, bias=False),
                GroupNorm(8 if wide % 8 == 0 else 1, wide),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(config.level_width(config.levels), 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)

    def forward(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n 1 h w"]:
        """Images in [0, 1] -> scores of patches."""
        verdicts: Tensor = self.layers(in_fast_layout(images * 2 - 1))
        return in_full(verdicts)


class StyleDiscriminator(nn.Module):
    """Residual blocks with blurred downsampling, then two linear layers: one score per image (n, 1)."""

    def __init__(self, config: DiscriminatorConfig, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        widths = [config.level_width(level) for level in range(config.levels + 1)]
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.Sequential(*(_BlurBlock(*pair) for pair in itertools.pairwise(widths)))
        height, width = (side // 2**config.levels for side in image_size)
        self.out = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * height * width, widths[-1]),
            nn.LeakyReLU(0.2),
            nn.Linear(widths[-1], 1),
        )

    def forward(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n 1"]:
        """Images in [0, 1] -> one score each."""
        x = functional.leaky_relu(self.stem(images * 2 - 1), 0.2)
        x = functional.leaky_relu(self.out(self.blocks(x)), 0.2)
        verdicts: Tensor = self.head(x)
        return in_full(verdicts)


class _BlurBlock(nn.Module):
    """Two 3x3 convolutions plus a 1x1 shortcut, at half the resolution."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.conv2 = nn.Conv2d(narrow, wide, 3, padding=1)
        self.shortcut = nn.Conv2d(narrow, wide, 1, bias=False)

    def forward(self, x: Float[Tensor, "n c H W"]) -> Float[Tensor, "n d h w"]:
        h = functional.leaky_relu(self.conv1(x), 0.2)
        h = functional.leaky_relu(self.conv2(blur_and_halve(h)), 0.2)
        mixed: Tensor = (h + self.shortcut(blur_and_halve(x))) / 2**0.5
        return mixed


def blur_and_halve(x: Float[Tensor, "n c H W"]) -> Float[Tensor, "n c h w"]:
    """Convolve with the outer product of (1, 3, 3, 1) / 8 and keep every other pixel."""
    line = x.new_tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = (line[:, None] * line[None, :]).expand(x.shape[1], 1, 4, 4)
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, kernel, stride=2, groups=x.shape[1])


def generator_loss(verdicts: Float[Tensor, "..."], kind: GanLoss) -> Float[Tensor, ""]:
    """The tokenizer's adversarial loss, from the scores of its reconstructions."""
    return -verdicts.mean() if kind == "hinge" else functional.softplus(-verdicts).mean()


def discriminator_loss(real: Float[Tensor, "..."], fake: Float[Tensor, "..."], kind: GanLoss) -> Float[Tensor, ""]:
    """The discriminator's loss. hinge: 1 at chance (Esser et al. 2021). non_saturating: 2 ln 2 at chance."""
    if kind == "hinge":
        return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def r1_penalty(network: nn.Module, images: Float[Tensor, "n c H W"]) -> Float[Tensor, ""]:
    """Mean over images of the score's squared gradient (Mescheder et al. 2018); float32, differentiable."""
    with torch.autocast(images.device.type, enabled=False):
        images = in_full(images.detach()).requires_grad_(True)
        (gradient,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
        return gradient.square().flatten(1).sum(dim=1).mean()


def adaptive_weight(
    reconstruction: Float[Tensor, ""], adversarial: Float[Tensor, ""], last: Tensor, *, largest: float = 1e4
) -> Float[Tensor, ""]:
    """Ratio of the two losses' gradient norms at the decoder's last weights (Esser et al. 2021, equation 7).

    Gradients are averaged over the images of all processes.
    """
    pull, push = (
        distributed.sum_over_processes(torch.autograd.grad(loss, last, retain_graph=True)[0]) / distributed.world_size()
        for loss in (reconstruction, adversarial)
    )
    ratio: Tensor = pull.norm() / (push.norm() + 1e-4)
    return ratio.clamp(0, largest).detach()
