"""The schema of a recipe: one dataclass tree that is written and read as YAML.

The configuration of each part is defined in the file of that part; this file only combines them.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from mage import settings
from mage.data.splits import ValidationConfig
from mage.data.tar_images import ShardConfig
from mage.data.transforms import TransformConfig
from mage.models import MAGEConfig
from mage.sampling.settings import SamplingConfig
from mage.tokenizers import VQGANConfig
from mage.training.methods import MAGEMethod, MethodConfig
from mage.training.optim import OptimConfig
from mage.training.run import RunConfig
from mage.training.tokenizer import TokenizerLossConfig


@dataclass(frozen=True)
class DataConfig:
    """Images, their size and augmentation."""

    name: str = "mnist5k"
    """Data set by name, a folder of images, or tar shards such as s3://bucket/x-{0000..0099}.tar."""
    channels: int = 0
    """Channels of an image: 1 grey, 3 RGB, or any other number; 0: the tokenizer's."""
    tokenizer_transform: TransformConfig = field(default_factory=TransformConfig)
    """Augmentation while the tokenizer is trained."""
    transform: TransformConfig = field(default_factory=TransformConfig)
    """Augmentation of the views that MAGE is trained on."""
    views: int = 1
    """Views per image in the token cache."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Training images held out to watch training and to choose settings."""
    online_images: int = 0
    """Labelled training images for an online probe and k-NN at every observation; 0: none."""
    shards: ShardConfig = field(default_factory=ShardConfig)
    """How images in tar shards are read."""
    decode_on: Literal["host", "device"] = "host"
    """Where JPEG files are decoded and augmented in training on images: by the workers, or on the GPU of the training
    (nvJPEG). Pixels may then differ by some levels; a run may change it when it is resumed."""

    def __post_init__(self) -> None:
        if self.channels < 0 or self.views < 1 or self.online_images < 0:
            raise ValueError(
                "data: views must be at least 1, channels and online_images 0 or more, not "
                f"{self.views}, {self.channels} and {self.online_images}"
            )


@dataclass(frozen=True)
class Recipe:
    """The whole configuration, from images to a model."""

    name: str
    """Name of the recipe."""
    data: DataConfig
    tokenizer: VQGANConfig | None
    """None for methods that read pixels."""
    model: MAGEConfig
    pretraining: OptimConfig
    method: MethodConfig = field(default_factory=MAGEMethod)
    """Method of pre-training: mage, mage-c, maskgit, mae, simclr, ijepa, or one registered by another package."""
    tokenizer_loss: TokenizerLossConfig = field(default_factory=TokenizerLossConfig)
    tokenizer_training: OptimConfig = field(default_factory=OptimConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: int = 0
    """Seed of everything random in training."""

    def __post_init__(self) -> None:
        for part, name in ((self.model, "model"), (self.tokenizer, "tokenizer")):
            settings.check_sizes(part and settings.to_dict(part), name)
        if self.tokenizer is None:
            if self.method.reads == "tokens":
                raise ValueError(f"the method {self.method.name} reads tokens: the recipe needs a tokenizer")
            if not self.data.channels:
                raise ValueError("without a tokenizer, set data.channels: 1 for grey, 3 for RGB")
        else:
            self._check_images(self.tokenizer)
        if self.model.num_classes:
            raise ValueError("model.num_classes follows from the data: set method.conditions.source instead")
        self.method.check(self.model)
        for name in ("tokenizer_training", "pretraining"):
            if getattr(self, name).layer_decay != 1:
                raise ValueError(f"{name}.layer_decay must be 1: only fine-tuning has rates that differ by layer")

    def _check_images(self, tokenizer: VQGANConfig) -> None:
        if self.data.channels not in (0, tokenizer.channels):
            raise ValueError(
                f"data.channels is {self.data.channels}, but tokenizer.channels is {tokenizer.channels}: must agree"
            )
        for name in ("tokenizer_transform", "transform"):
            size = getattr(self.data, name).size
            if tuple(size) != tuple(tokenizer.image_size):
                raise ValueError(
                    f"data.{name}.size is {size}, but tokenizer.image_size is {tokenizer.image_size}: must agree"
                )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        return self.data.transform.size

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.data.channels if self.tokenizer is None else self.tokenizer.channels


def to_yaml(recipe: Any) -> str:
    """A recipe, also one of fine-tuning, as YAML."""
    return yaml.safe_dump(settings.to_dict(recipe), sort_keys=False, default_flow_style=None, width=110)
