"""The paper's recipes on ImageNet-1K at 256 x 256 (appendix): ViT-B and ViT-L.

Command: torchrun --nproc-per-node=8 -m mage pretrain --recipe imagenet-base --data /path/to/imagenet ...
Published: 64 V100 for 5.5 days (B) and 10.7 days (L); final loss of ViT-B 5.76.
"""

from dataclasses import replace

from mage.data.splits import ValidationConfig
from mage.data.transforms import TransformConfig
from mage.models.presets import PRESETS
from mage.recipes.schema import DataConfig, Recipe
from mage.tokenizers import QuantizerConfig, VQGANConfig
from mage.tokenizers.discriminator import DiscriminatorConfig
from mage.training.adversarial import AdversarialConfig
from mage.training.optim import OptimConfig
from mage.training.run import RunConfig
from mage.training.tokenizer import TokenizerLossConfig

MASKGIT_LOSS = TokenizerLossConfig(
    perceptual=0.1,
    perceptual_size=0,
    perceptual_share=1.0,
    adversarial=AdversarialConfig(
        weight=0.1, loss="non_saturating", adaptive=False, start=0.0, r1=10.0, base_learning_rate=1e-4,
        betas=(0.0, 0.99), discriminator=DiscriminatorConfig(kind="style", levels=6),
    ),
)  # fmt: skip
"""MaskGIT's tokenizer; the perceptual network was a ResNet-50, `timm:resnet50` with a connection."""

TAMING_LOSS = TokenizerLossConfig(
    squared=0.0,
    absolute=1.0,
    perceptual=1.0,
    perceptual_network="lpips-vgg",
    perceptual_size=0,
    perceptual_share=1.0,
    adversarial=AdversarialConfig(weight=0.8, start=0.1, base_learning_rate=4.5e-4, betas=(0.5, 0.9)),
)
"""Taming's: absolute error, LPIPS, and later in training a PatchGAN with hinge loss and adaptive weight."""


def imagenet_base() -> Recipe:
    """MAGE ViT-B: 11.1 FID, 74.7 % linear probe published."""
    crops = TransformConfig(size=(256, 256), augmentation="crop_flip", scale=(0.2, 1.0))
    return Recipe(
        name="imagenet-base",
        data=DataConfig(name="imagenet", tokenizer_transform=crops, transform=crops, views=10,
            validation=ValidationConfig(share=0.01, images=2000),
        ),
        tokenizer=VQGANConfig(quantizer=QuantizerConfig(entropy=0.1)),
        tokenizer_loss=MASKGIT_LOSS,
        tokenizer_training=OptimConfig(
            batch_size=256, steps=1_000_000, base_learning_rate=1e-4, warmup=0.005, betas=(0.0, 0.99), weight_decay=0.0,
            ema_decay=0.999,
        ),
        model=PRESETS["base"],
        pretraining=OptimConfig(batch_size=4096, epochs=1600, base_learning_rate=1.5e-4, warmup=40 / 1600, clip=3.0),
        run=RunConfig(log_every=100, observe_every=5000, checkpoint_every=5000),
    )  # fmt: skip


def imagenet_large() -> Recipe:
    """MAGE ViT-L: 9.10 FID, 78.9 % linear probe published."""
    return replace(imagenet_base(), name="imagenet-large", model=PRESETS["large"])


def imagenet_taming() -> Recipe:
    """ViT-B on a tokenizer trained with taming's losses and weak augmentation: crops that show most of an image."""
    base = imagenet_base()
    weak = replace(base.data.tokenizer_transform, scale=(0.8, 1.0))
    return replace(
        base,
        name="imagenet-taming",
        data=replace(base.data, tokenizer_transform=weak),
        tokenizer=VQGANConfig(),
        tokenizer_loss=TAMING_LOSS,
        tokenizer_training=replace(base.tokenizer_training, base_learning_rate=4.5e-4, betas=(0.5, 0.9)),
    )
