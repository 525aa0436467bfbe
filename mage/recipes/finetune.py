"""Recipes of fine-tuning: data and augmentation, regularisation, optimizer.

`base` and `large` are the paper's (section 4.3) with the settings of its public code, for ViT-B and ViT-L on ImageNet.
`small` is for small models and data sets of thousands of small images.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mage.data.splits import ValidationConfig
from mage.data.transforms import TransformConfig, evaluation_transform
from mage.models.pooling import Pool
from mage.training.classify import MixConfig
from mage.training.optim import OptimConfig
from mage.training.run import RunConfig


@dataclass(frozen=True)
class FinetuneData:
    """Labelled images and their augmentation."""

    name: str = "mnist5k"
    """Data set by name, or a folder with one folder per class."""
    transform: TransformConfig = field(
        default_factory=lambda: TransformConfig(
            augmentation="crop_flip",
            scale=(0.2, 1.0),
            interpolation="bicubic",
            rand_augment="rand-m9-mstd0.5-inc1",
        )
    )
    """Augmentation; its size becomes the model's."""
    test_resize: float = 292 / 256
    """Shorter side of a scaled test image over the side of its centre crop; 1: the largest centre crop."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Training images held out to watch training; test images are for the final result."""

    def __post_init__(self) -> None:
        """Raises ValueError for a crop larger than the image."""
        if self.test_resize < 1:
            raise ValueError(f"data.test_resize must be 1, the largest centre crop, or more, not {self.test_resize}")

    def test_transform(self, size: tuple[int, int]) -> TransformConfig:
        """Scaling and cropping of test images to the model's size."""
        return evaluation_transform(size, self.test_resize)


@dataclass(frozen=True)
class FinetuneRecipe:
    """The configuration of a fine-tuning run except for the model; the defaults are the paper's for ViT-B."""

    name: str = "base"
    """Name of the recipe."""
    data: FinetuneData = field(default_factory=FinetuneData)
    """Data set and augmentation."""
    mixing: MixConfig = field(default_factory=MixConfig)
    """Mixup, cutmix and label smoothing."""
    pool: Pool = "mean"
    """The head's input: mean of the tokens, or the class token."""
    drop_path: float = 0.1
    """Largest share of the images for which a block is skipped in training; grows with depth."""
    dropout: float = 0.0
    """Dropout in the blocks of MAGE's encoder, which replaces that of pre-training."""
    embedding_dropout: float = 0.1
    """Dropout after the token embedding."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            batch_size=1024,
            epochs=100,
            base_learning_rate=2.5e-4,
            end_learning_rate=1e-3,  # of a peak of 1e-3: the published minimum of 1e-6
            warmup=0.05,
            betas=(0.9, 0.999),
            clip=0.0,
            ema_decay=0.0,
            layer_decay=0.65,
        )
    )
    """Optimizer."""
    run: RunConfig = field(default_factory=RunConfig)
    """Logging and checkpoints."""
    seed: int = 0
    """Seed of everything random."""


def _large() -> FinetuneRecipe:
    base = FinetuneRecipe()
    return replace(
        base, name="large", drop_path=0.2, optim=replace(base.optim, epochs=50, warmup=0.1, layer_decay=0.75)
    )


def _small() -> FinetuneRecipe:
    base = FinetuneRecipe()
    transform = replace(base.data.transform, scale=(0.5, 1.0), interpolation="bilinear", rand_augment="")
    return replace(
        base,
        name="small",
        data=replace(base.data, transform=transform, test_resize=1.0),
        mixing=MixConfig(mixup=0.2, cutmix=0.5),
        drop_path=0.05,
        embedding_dropout=0.0,
        optim=replace(
            base.optim,
            batch_size=128,
            epochs=10,
            base_learning_rate=2e-3,
            end_learning_rate=0.0,
            warmup=0.1,
            layer_decay=0.75,
            clip=3.0,
        ),
        run=RunConfig(observe_every=500, checkpoint_every=500),
    )


FINETUNES: dict[str, Callable[[], FinetuneRecipe]] = {"base": FinetuneRecipe, "large": _large, "small": _small}
"""Recipes by name."""


def protocol(recipe: FinetuneRecipe, steps: int, size: tuple[int, int]) -> str:
    """Protocol of an accuracy after fine-tuning, in one line."""
    cut = recipe.data.test_transform(size)
    test = f"test images scaled to {cut.resize} and cut to {max(size)}" if cut.resize else "fixed centre crops"
    return f"recipe {recipe.name}, {steps} steps, {test}"
