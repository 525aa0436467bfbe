"""The paper's recipes on ImageNet-1K at 256 x 256 (METHOD section 6): ViT-B and ViT-L.

Command: torchrun --nproc-per-node=8 -m mage pretrain --recipe imagenet-base --data /path/to/imagenet ...
Published: 64 V100 for 5.5 days (B) and 10.7 days (L); final loss of ViT-B 5.76.
"""

from dataclasses import replace

from mage.data.transforms import TransformConfig
from mage.masking import MaskRatioConfig
from mage.models.presets import PRESETS
from mage.recipes.schema import DataConfig, Recipe
from mage.tokenizers import VQGANConfig
from mage.training.optim import OptimConfig
from mage.training.run import RunConfig
from mage.training.tokenizer import TokenizerLossConfig


def imagenet_base() -> Recipe:
    """MAGE ViT-B: 11.1 FID, 74.7 % linear probe published."""
    crops = TransformConfig(size=(256, 256), augmentation="crop_flip", scale=(0.2, 1.0))
    return Recipe(
        name="imagenet-base",
        data=DataConfig(name="imagenet", tokenizer_transform=crops, transform=crops, views=10, validation_images=2000),
        tokenizer=VQGANConfig(),
        tokenizer_loss=TokenizerLossConfig(perceptual=0.1, perceptual_size=0, perceptual_share=1.0),
        tokenizer_training=OptimConfig(
            batch_size=256, steps=1_000_000, base_learning_rate=1e-4, warmup=0.005, betas=(0.0, 0.99), weight_decay=0.0,
            ema_decay=0.999,
        ),
        model=PRESETS["base"],
        masking=MaskRatioConfig(),
        pretraining=OptimConfig(batch_size=4096, epochs=1600, base_learning_rate=1.5e-4, warmup=40 / 1600, clip=3.0),
        run=RunConfig(log_every=100, observe_every=5000, checkpoint_every=5000),
    )  # fmt: skip


def imagenet_large() -> Recipe:
    """MAGE ViT-L: 9.10 FID, 78.9 % linear probe published."""
    return replace(imagenet_base(), name="imagenet-large", model=PRESETS["large"])
