"""MAGE-C and the baselines on CIFAR-10, for comparisons at equal wall time with one encoder and one evaluation.

They differ only in the method: what is masked, predicted or contrasted.
"""

from dataclasses import replace

from mage.data.transforms import TransformConfig
from mage.masking import MaskRatioConfig
from mage.models.ijepa import BlockConfig, IJEPAConfig
from mage.models.mae import MAEConfig
from mage.recipes.schema import Recipe
from mage.recipes.small import cifar10
from mage.training.methods import IJEPAMethod, MAEMethod, MAGECMethod, MaskGITMethod, MethodConfig, SimCLRMethod

CROPS = TransformConfig(size=(32, 32), augmentation="crop_flip", scale=(0.2, 1.0))


def cifar10_crops() -> Recipe:
    """MAGE with the paper's crops instead of flips alone, as it is compared with MAGE-C and the baselines."""
    base = cifar10()
    return replace(base, name="cifar10-crops", data=replace(base.data, transform=CROPS, views=8, online_images=2000))


def cifar10_mage_c() -> Recipe:
    """MAGE-C: two views, contrast with weight 0.1."""
    base = cifar10_crops()
    return replace(
        base,
        name="cifar10-mage-c",
        pretraining=replace(base.pretraining, steps=850),  # two views per image and step
        method=MAGECMethod(masking=MaskRatioConfig(per_image=True)),
    )


def cifar10_maskgit() -> Recipe:
    """MaskGIT's training: all eight and two blocks in one transformer, nothing dropped, cosine mask ratio."""
    base = cifar10_crops()
    sizes = replace(base.model, depth=base.model.depth + base.model.decoder_depth, decoder_depth=0)
    return replace(base, name="cifar10-maskgit", model=sizes, method=MaskGITMethod())


def cifar10_mae() -> Recipe:
    """MAE on pixels, patches of 4 x 4, three quarters masked."""
    decoder = MAEConfig(decoder_width=128, decoder_depth=2, decoder_heads=2)
    return _on_pixels("cifar10-mae", MAEMethod(patch_size=4, mae=decoder))


def cifar10_simclr() -> Recipe:
    """SimCLR with the same ViT: crops, flips and colour jitter, temperature 0.2."""
    return _on_pixels("cifar10-simclr", SimCLRMethod(patch_size=4))


def cifar10_ijepa() -> Recipe:
    """I-JEPA on pixels, patches of 4 x 4: representations of left-out blocks are predicted.

    The blocks are the paper's; predictor and momentum are chosen for 64 patches and a few thousand steps. Every context
    has at least a quarter of the patches, as in MAE, because contexts are cut to the shortest one of a batch.
    """
    predictor = IJEPAConfig(
        predictor_width=96, predictor_depth=4, momentum=0.99, blocks=BlockConfig(least_context=0.25)
    )
    recipe = _on_pixels("cifar10-ijepa", IJEPAMethod(patch_size=4, ijepa=predictor))
    # The target encoder already is a moving average.
    return replace(recipe, pretraining=replace(recipe.pretraining, ema_decay=0.0))


def _on_pixels(name: str, method: MethodConfig) -> Recipe:
    """The same encoder and images, without a tokenizer."""
    base = cifar10_crops()
    return replace(base, name=name, data=replace(base.data, channels=3), tokenizer=None, method=method)
