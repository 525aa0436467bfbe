"""The form of a recipe: one dataclass tree, printable as YAML, loadable from YAML.

Each part is the configuration of the thing it configures and stands beside it; this file only puts them together.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from mage import settings
from mage.data.colour import ColourConfig
from mage.data.transforms import TransformConfig
from mage.masking import MaskRatioConfig
from mage.models import MAGEConfig
from mage.models.contrastive import ContrastiveConfig
from mage.models.mae import MAEConfig
from mage.sampling.settings import SamplingConfig
from mage.tokenizers import VQGANConfig
from mage.training.conditions import ConditionConfig
from mage.training.optim import OptimConfig
from mage.training.run import RunConfig
from mage.training.tokenizer import TokenizerLossConfig


@dataclass(frozen=True)
class DataConfig:
    """Images, and how they are cut and varied."""

    name: str = "mnist5k"
    """Data set by name, or a folder of images."""
    tokenizer_transform: TransformConfig = field(default_factory=TransformConfig)
    """Augmentation while the tokenizer is trained."""
    transform: TransformConfig = field(default_factory=TransformConfig)
    """Augmentation of the views that MAGE is trained on."""
    views: int = 1
    """Views per image in the token cache."""
    validation_images: int = 1000
    """Images of the test split, at most, that training watches itself on."""
    online_images: int = 0
    """Labelled training images that an online probe and k-NN learn from at every observation; 0: none."""


@dataclass(frozen=True)
class PixelConfig:
    """What the rivals that see pixels need; their encoder has the sizes of `model`."""

    patch_size: int = 16
    """Pixels per side of a patch."""
    mae: MAEConfig = field(default_factory=MAEConfig)
    """MAE's decoder and mask."""
    colour: ColourConfig = field(default_factory=ColourConfig)
    """SimCLR's colour jitter."""


@dataclass(frozen=True)
class Recipe:
    """From images to a model."""

    name: str
    """Name of the recipe."""
    data: DataConfig
    tokenizer: VQGANConfig
    tokenizer_loss: TokenizerLossConfig
    tokenizer_training: OptimConfig
    model: MAGEConfig
    masking: MaskRatioConfig
    pretraining: OptimConfig
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: int = 0
    """Seed of everything random in training."""
    method: Literal["mage", "mae", "simclr"] = "mage"
    """mage: tokens are predicted (MAGE-C with contrastive.weight, MaskGIT with model.decoder_depth=0). mae, simclr: the
    rivals on pixels, with MAGE's encoder and data."""
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    """MAGE-C's contrast, and SimCLR's."""
    pixels: PixelConfig = field(default_factory=PixelConfig)
    """Of the methods on pixels."""
    conditions: ConditionConfig = field(default_factory=ConditionConfig)
    """Classes that generation can be asked for."""

    def __post_init__(self) -> None:
        for name in ("tokenizer_transform", "transform"):
            size = getattr(self.data, name).size
            if tuple(size) != tuple(self.tokenizer.image_size):
                raise ValueError(
                    f"data.{name}.size is {size}, but tokenizer.image_size is {self.tokenizer.image_size}: must agree"
                )
        if self.conditions.source != "none" and (self.method != "mage" or self.contrastive.weight):
            raise ValueError("conditions.source goes with method=mage and contrastive.weight=0")
        if self.conditions.freeze_encoder and self.model.class_input == "encoder" and self.conditions.source != "none":
            raise ValueError(
                "conditions.freeze_encoder goes with model.class_input=decoder: the encoder learns no class"
            )
        if self.model.num_classes:
            raise ValueError("model.num_classes follows from the data: set conditions.source instead")
        if self.method == "mage" and not self.model.decoder_depth and self.masking.drop:
            raise ValueError(
                "model.decoder_depth=0 goes with masking.drop=false: without a decoder every token is seen"
            )


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML."""
    return yaml.safe_dump(settings.to_dict(recipe), sort_keys=False, default_flow_style=None, width=110)


def from_yaml(path: str | Path) -> Recipe:
    """Read a recipe. Raises ValueError naming what is wrong in the file."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ValueError(f"there is no recipe file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} is not readable as YAML: {reason}") from None
    try:
        return settings.from_dict(Recipe, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
