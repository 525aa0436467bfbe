"""Fine-tuning: layer decay against a table made by hand, mixing conserves shares, a model learns its labels."""

import copy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.data import create_transform
from timm.data.auto_augment import RandAugment
from torch import nn
from torchvision.transforms import v2

import mage
from mage import building, rng
from mage.data.transforms import TransformConfig, build_transform
from mage.models import MAGEConfig, PatchClassifier, PatchEncoder, PatchEncoderConfig
from mage.models.classifier import Classifier
from mage.pipeline import Mage
from mage.recipes.finetune import FINETUNES, FinetuneRecipe, protocol
from mage.runs.finetune import finetune, start_classifier
from mage.settings import override
from mage.tokenizers import QuantizerConfig, VQGANConfig
from mage.training.classify import MixConfig, mix
from mage.training.engine import Trainer
from mage.training.optim import OptimConfig, build_optimizer, learning_rate
from tests.reference.launches import quiet

SIZES = MAGEConfig(width=32, depth=3, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2, dropout=0.0)
TOKENIZER = VQGANConfig(
    image_size=(28, 28), channels=1, width=16, multipliers=(1, 1), blocks=1, quantizer=QuantizerConfig(num_codes=32)
)


@pytest.fixture(scope="module")
def pretrained() -> Mage:
    return building.build(SIZES, tokenizer=TOKENIZER, precision="float32")


def rates(module: Classifier) -> dict[str, tuple[float, float]]:
    """Name of each parameter -> (share of the learning rate, weight decay)."""
    optimizer = build_optimizer(module, OptimConfig(layer_decay=0.5, weight_decay=0.05))
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_layer_decay_is_the_table_made_by_hand(pretrained: Mage) -> None:
    """Three blocks: embedding 0.5^4, block i 0.5^(3 - i), head 1; vectors do not decay, words and positions do."""
    found = rates(start_classifier(pretrained, 10))
    expected = {
        "encoder.embedding.word.weight": (0.0625, 0.05),
        "encoder.embedding.position.weight": (0.0625, 0.05),
        "encoder.embedding.norm.weight": (0.0625, 0.0),
        "encoder.blocks.0.attn.qkv.weight": (0.125, 0.05),
        "encoder.blocks.0.norm1.bias": (0.125, 0.0),
        "encoder.blocks.1.mlp.fc1.weight": (0.25, 0.05),
        "encoder.blocks.2.attn.proj.weight": (0.5, 0.05),
        "feature_norm.weight": (1.0, 0.0),
        "head.weight": (1.0, 0.05),
        "head.bias": (1.0, 0.0),
    }
    assert {name: found[name] for name in expected} == expected
    module = start_classifier(pretrained, 10)
    assert set(found) == {name for name, _ in module.named_parameters()}


def test_layer_decay_of_an_encoder_of_pixels() -> None:
    found = rates(PatchClassifier(PatchEncoderConfig((8, 8), 1, 4, 16, 2, 2), num_classes=3, pool="class"))
    assert found["encoder.patches.weight"] == (0.125, 0.05)
    assert found["encoder.class_token"] == found["encoder.position"] == (0.125, 0.0)
    assert found["encoder.blocks.1.mlp.fc2.weight"] == (0.5, 0.05)
    assert found["encoder.norm.weight"] == (1.0, 0.0)


def test_each_group_learns_at_its_share(pretrained: Mage, tmp_path: Path) -> None:
    """The engine sets the rate of every group in every step: the share must survive."""
    recipe = override(
        FINETUNES["small"](), ["optim.layer_decay=0.5", "optim.batch_size=8", "optim.steps=4", "optim.warmup=0"]
    )
    seen: list[set[float]] = []
    original = Trainer._update

    def spy(self: Trainer, name: str) -> None:
        original(self, name)
        seen.append({group["lr"] for group in self.optimizers[name].param_groups})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", spy)
        finetune(recipe, quiet(tmp_path / "run", precision="float32", device="cpu"), pretrained)
    top = 2e-3 * 8 / 256
    assert sorted(seen[0]) == pytest.approx([top * 0.5**power for power in (4, 3, 2, 1, 0)])


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixing_conserves_shares(mixup: float, cutmix: float) -> None:
    """Images that are their class number everywhere: the mean of a mixture is the expected class."""
    labels = torch.tensor([0, 1, 2, 3, 4, 5])
    images = (labels / 5).view(6, 1, 1, 1).expand(6, 3, 8, 10).contiguous()
    for seed in range(20):
        mixed = mix(images, labels, 6, MixConfig(mixup=mixup, cutmix=cutmix), seed)
        torch.testing.assert_close(mixed.targets.sum(dim=1), torch.ones(6))
        torch.testing.assert_close(mixed.images.mean(dim=(1, 2, 3)) * 5, mixed.targets @ labels.float())
        if mixup == 0:  # a rectangle: every pixel belongs to one of the two
            assert all(len(one.unique()) <= 2 for one in mixed.images)


def test_mixing_nothing_leaves_everything() -> None:
    images = torch.rand(4, 1, 5, 5, generator=rng.generator(0))
    mixed = mix(images, torch.tensor([1, 0, 2, 1]), 3, MixConfig(mixup=0, cutmix=0), 0)
    assert mixed.images is images
    assert mixed.targets.argmax(dim=1).tolist() == [1, 0, 2, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_varies_and_repeats_and_leaves_the_global_generators(channels: int) -> None:
    config = TransformConfig(size=(16, 16), rand_augment="rand-m9-mstd0.5-inc1")
    transform, plain = build_transform(config), build_transform(TransformConfig(size=(16, 16)))
    image = torch.randint(256, (channels, 20, 20), dtype=torch.uint8, generator=rng.generator(0))
    before = np.random.get_state()[1].tolist()
    views = [transform(image, rng.generator(seed)) for seed in range(8)]
    again = [transform(image, rng.generator(seed)) for seed in range(8)]
    assert np.random.get_state()[1].tolist() == before
    assert all(torch.equal(one, other) for one, other in zip(views, again, strict=True))
    assert all(view.shape == (channels, 16, 16) and view.dtype == torch.uint8 for view in views)
    assert sum(not torch.equal(view, plain(image, rng.generator(0))) for view in views) >= 6
    with pytest.raises(ValueError, match="rand_augment is written like"):
        TransformConfig(rand_augment="strong")


def test_starts_at_the_encoder_and_learns(pretrained: Mage, tmp_path: Path) -> None:
    fresh = start_classifier(pretrained, 10)
    source = pretrained.transformer.encoder.state_dict()
    assert all(torch.equal(tensor, source[name]) for name, tensor in fresh.encoder.state_dict().items())
    pretrained = Mage.of(replace(pretrained.parts, notes={"class_shares": [0.5, 0.5], "sampling_tuned": {}}))
    recipe: FinetuneRecipe = override(
        FINETUNES["small"](), ["optim.batch_size=64", "optim.steps=120", "mixing.mixup=0", "mixing.cutmix=0",
                               "data.transform.augmentation=none", "optim.base_learning_rate=8e-3"],
    )  # fmt: skip
    result = finetune(recipe, quiet(tmp_path / "run", precision="float32", device="cpu"), pretrained)
    assert result.metrics["valid/accuracy"] > 0.25  # random tokens know little more; chance is 0.1
    tuned = mage.load(tmp_path / "run", precision="float32")
    assert tuned.transformer.num_classes == 10
    assert tuned.notes["class_names"] == [str(digit) for digit in range(10)]
    assert not {"class_shares", "sampling_tuned"} & set(tuned.notes), "those of the generator"
    assert tuned.classify(torch.rand(2, 1, 28, 28, generator=rng.generator(0))).shape == (2, 10)


def test_a_run_goes_on_only_with_the_weights_that_it_began_with(pretrained: Mage, tmp_path: Path) -> None:
    few = ["data.name=digits", "data.validation.images=8", "optim.batch_size=8"]
    recipes = [override(FINETUNES["small"](), [*few, f"optim.steps={steps}"]) for steps in (1, 2)]
    launch = quiet(tmp_path / "run", precision="float32", device="cpu")
    finetune(recipes[0], launch, pretrained)
    other = copy.deepcopy(pretrained.tokenizer)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(ValueError, match=r"started with other settings: tokenizer: .* is not"):
        finetune(recipes[1], replace(launch, resume=True), Mage(other, pretrained.transformer))
    trained_longer = copy.deepcopy(pretrained.transformer)
    with torch.no_grad():
        next(trained_longer.encoder.parameters()).add_(1)
    with pytest.raises(ValueError, match=r"started with other settings: encoder: .* is not"):
        finetune(recipes[1], replace(launch, resume=True), Mage(pretrained.tokenizer, trained_longer))
    assert finetune(recipes[1], replace(launch, resume=True), pretrained).steps == 2


def test_a_model_of_pixels_is_tuned_without_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = PatchEncoder(PatchEncoderConfig((28, 28), 1, 7, 32, 2, 2))
    recipe = override(FINETUNES["small"](), ["optim.batch_size=18", "optim.steps=3", "data.validation.images=20"])
    two = SimpleNamespace(world_size=lambda: 2, is_first=lambda: True)
    monkeypatch.setattr(sys.modules[finetune.__module__], "distributed", two)
    finetune(recipe, quiet(tmp_path / "run", precision="float32", device="cpu"), Mage(None, encoder))
    assert isinstance(mage.load(tmp_path / "run").transformer, PatchClassifier)
    assert "each process computes 9 images at a time, and images are mixed with others of their part" in caplog.text


def test_settings_are_the_published_ones() -> None:
    base, large = FINETUNES["base"](), FINETUNES["large"]()
    assert (base.optim.epochs, base.optim.layer_decay, base.drop_path) == (100, 0.65, 0.1)
    assert (large.optim.epochs, large.optim.layer_decay, large.drop_path) == (50, 0.75, 0.2)
    assert base.optim.warmup * base.optim.epochs == large.optim.warmup * large.optim.epochs == 5
    assert (base.mixing.mixup, base.mixing.cutmix, base.mixing.label_smoothing) == (0.8, 1.0, 0.1)
    for recipe in (base, large):
        steps = recipe.optim.num_steps(1_281_167)
        assert recipe.optim.peak_learning_rate == pytest.approx(1e-3)
        assert learning_rate(recipe.optim, steps, steps) == pytest.approx(1e-6)
        assert recipe.data.transform.scale == (0.2, 1.0)
        cut = recipe.data.test_transform((256, 256))
        assert (cut.resize, cut.size, cut.augmentation) == (292, (256, 256), "none")
        assert protocol(recipe, 7, (256, 256)).endswith("7 steps, test images scaled to 292 and cut to 256")
    small = FINETUNES["small"]()
    assert small.data.test_transform((32, 32)) == TransformConfig(size=(32, 32))
    assert protocol(small, 7, (32, 32)) == "recipe small, 7 steps, fixed centre crops"


def test_fine_tuning_drops_out_on_the_embedding_alone() -> None:
    """As the public code, whatever the pre-training had in its blocks (0.1)."""
    whole = building.build(replace(SIZES, dropout=0.1), tokenizer=TOKENIZER, precision="float32")
    recipe = FINETUNES["base"]()
    classifier = start_classifier(whole, 10, dropout=recipe.dropout, embedding_dropout=recipe.embedding_dropout)
    shares = {name: layer.p for name, layer in classifier.named_modules() if isinstance(layer, nn.Dropout)}
    assert shares.pop("encoder.embedding.dropout") == 0.1
    assert shares
    assert set(shares.values()) == {0.0}
    classifier.train()
    inner = classifier.encoder.embed(torch.zeros(2, 196, dtype=torch.long))
    runs = []
    for _ in range(2):
        x = inner
        for block in classifier.encoder.blocks:
            x = block(x)
        runs.append(x)
    assert torch.equal(*runs), "blocks add no noise in training"


def test_rand_augment_is_bicubic_as_the_public_code_asks_timm_for() -> None:
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=rng.generator(0))
    text = "rand-m9-mstd0.5-inc1"
    steps = create_transform((3, 32, 32), is_training=True, auto_augment=text, interpolation="bicubic").transforms
    policy = next(step for step in steps if isinstance(step, RandAugment))
    transform = build_transform(TransformConfig(size=(32, 32), rand_augment=text))
    for seed in range(20):
        drawn = int(torch.randint(2**31, (), generator=rng.generator(seed)))
        with rng.global_generators(drawn):
            expected = policy(v2.functional.to_pil_image(image))
        assert torch.equal(transform(image, rng.generator(seed)), v2.functional.pil_to_tensor(expected))


def test_a_model_without_encoder_is_an_error(pretrained: Mage) -> None:
    with pytest.raises(ValueError, match="no transformer"):
        start_classifier(Mage(pretrained.tokenizer, None), 10)
