"""The encoder with timm's interface, tried as timm tries its own models, and against the model itself."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.optim import param_groups_layer_decay
from torch import Tensor

import mage
import mage.interop.timm_models as timm_models
from mage.models import PatchEncoder, PatchEncoderConfig
from mage.store import packaged
from mage.store.example_images import read_examples
from mage.tokenizers import VQGAN, QuantizerConfig, VQGANConfig
from mage.vocabulary import Vocabulary

SIZES = mage.MAGEConfig(16, 3, 2, decoder_width=16, decoder_depth=1, decoder_heads=2, dropout=0.3)
TOKENIZER = VQGANConfig((8, 12), 3, 8, (1, 1), 1, 1, 1, 4, 2, QuantizerConfig(num_codes=16))
VOCABULARY = Vocabulary.fresh(16)


def of(kind: str) -> mage.Mage:
    """A small model of each kind."""
    tokens = VQGAN(TOKENIZER)
    if kind == "pixels":
        return mage.Mage(None, PatchEncoder(PatchEncoderConfig((8, 12), 3, 4, 16, 3, 2)), precision="float32")
    if kind == "mage":
        return mage.Mage(tokens, mage.MAGETransformer(SIZES, VOCABULARY, TOKENIZER.grid), precision="float32")
    pool: Any = {"fine-tuned": "mean", "probe": "class"}[kind]
    head: Any = {"fine-tuned": "linear", "probe": "batchnorm_linear"}[kind]
    network = mage.MAGEClassifier(SIZES, VOCABULARY, TOKENIZER.grid, num_classes=5, pool=pool, head_kind=head)
    torch.nn.init.normal_(network.head.weight)
    return mage.Mage(tokens, network.eval(), precision="float32")


KINDS = ("mage", "pixels", "fine-tuned", "probe")


def made(kind: str, **settings: Any) -> Any:
    return timm.create_model("mage", model=of(kind), pretrained=True, **settings)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def normalised(images: Tensor) -> Tensor:
    """As timm's transforms give them for mean and standard deviation 0.5."""
    return (images - 0.5) / 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_scores_are_those_of_the_model(kind: str, images: Tensor) -> None:
    model = of(kind)
    encoder = timm.create_model("mage", model=model, pretrained=True).eval()
    pool: Any = "class" if kind == "probe" else "mean"
    with torch.no_grad():
        features = encoder.forward_head(encoder.forward_features(normalised(images)), pre_logits=True)
        scores = encoder(normalised(images))
    assert torch.allclose(features, model.features(images, pool), atol=1e-6)
    expected = model.classify(images) if kind in ("fine-tuned", "probe") else features
    assert torch.allclose(scores, expected, atol=1e-5)
    assert encoder.num_classes == (5 if kind in ("fine-tuned", "probe") else 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [0, 7])
def test_weights_of_sixteen_bits_give_about_the_same(kind: str, classes: int, images: Tensor) -> None:
    encoder = made(kind, num_classes=classes).eval()
    with torch.no_grad():
        expected = encoder(normalised(images))
        found = encoder.to(torch.bfloat16)(normalised(images).bfloat16())
    assert found.shape == expected.shape
    assert found.isfinite().all()


def test_packaged_models_run_with_weights_of_sixteen_bits() -> None:
    encoder = timm.create_model("mage_digits", pretrained=True, num_classes=10).eval().to(torch.bfloat16)
    with torch.no_grad():
        assert encoder(torch.zeros(2, 1, 28, 28, dtype=torch.bfloat16)).shape == (2, 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", ["avg", "token", ""])
def test_forward_backward_and_head(kind: str, pool: str, images: Tensor) -> None:
    if (kind, pool) == ("fine-tuned", "token"):
        with pytest.raises(ValueError, match="no norm for the class token"):
            made(kind, global_pool=pool)
        return
    encoder = made(kind, num_classes=7, global_pool=pool)
    scores = encoder(normalised(images))
    assert scores.shape == ((3, 7, 7) if pool == "" else (3, 7)), "a class and six tokens"
    assert not scores.isnan().any()
    scores.mean().backward()
    without = [name for name, weight in encoder.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not without
    assert all(weight.grad is None for name, weight in encoder.named_parameters() if name.startswith("tokenizer"))
    assert encoder.get_classifier() is encoder.head
    assert encoder.head.weight.shape == (7, encoder.num_features)
    assert f"{encoder.pretrained_cfg['classifier']}.weight" in encoder.state_dict()
    encoder.reset_classifier(0)
    assert encoder(normalised(images)).shape == ((3, 7, 16) if pool == "" else (3, encoder.num_features))


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_blocks_are_those_of_the_model(kind: str, images: Tensor) -> None:
    model = of(kind)
    expected = model.forward_intermediates(images, [0, 2])
    encoder = timm.create_model("mage", model=model, pretrained=True).eval()
    with torch.no_grad():
        last, maps = encoder.forward_intermediates(normalised(images), [0, 2])
        early = encoder.forward_intermediates(normalised(images), [1], stop_early=True, intermediates_only=True)
        rows = encoder.get_intermediate_layers(normalised(images), 2, return_prefix_tokens=True)
        same = encoder.get_intermediate_layers(normalised(images), [0, 2], reshape=True)
        forward = encoder.forward_features(normalised(images))
    for one, two, three in zip(maps, same, expected, strict=True):
        assert one.shape == (3, 16, 2, 3)
        assert torch.equal(one, two)
        assert torch.allclose(one, three, atol=1e-6)
    assert torch.equal(last, forward)
    assert len(early) == 1
    assert [(row.shape, first.shape) for row, first in rows] == [((3, 6, 16), (3, 1, 16))] * 2
    with pytest.raises(ValueError, match="blocks are numbered 0 to 2"):
        encoder.forward_intermediates(normalised(images), [3])


def test_features_only_gives_maps_and_their_description(images: Tensor) -> None:
    model = of("mage")
    expected = model.forward_intermediates(images, [0, 1])
    network = timm.create_model("mage", model=model, pretrained=True, features_only=True, out_indices=(0, 1)).eval()
    with torch.no_grad():
        maps = network(normalised(images))
    assert [tuple(image.shape) for image in maps] == [(3, 16, 2, 3)] * 2
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(maps, expected, strict=True))
    assert network.feature_info.channels() == [16, 16]
    assert network.feature_info.reduction() == [4, 4]
    assert len(network.model.encoder.blocks) == 2, "later blocks are dropped"


def test_checkpointing_changes_no_gradient(images: Tensor) -> None:
    encoder = made("mage", num_classes=2)
    encoder.encoder.embedding.dropout.p = 0.0
    gradients = []
    for enable in (False, True):
        encoder.set_grad_checkpointing(enable)
        encoder.zero_grad()
        encoder(normalised(images)).square().sum().backward()
        gradients.append(encoder.encoder.blocks[0].attn.qkv.weight.grad.clone())
    assert gradients[0].abs().max() > 0
    assert torch.allclose(*gradients, atol=1e-6)


def test_training_has_drop_path_and_no_dropout_and_a_still_tokenizer(images: Tensor) -> None:
    encoder = made("mage").train()
    encoder.encoder.embedding.dropout.p = 0.0
    assert torch.equal(encoder(normalised(images)), encoder(normalised(images)))
    assert not encoder.tokenizer.training
    dropping = made("mage", drop_path_rate=0.9)
    assert [getattr(block.drop_path1, "drop_prob", 0.0) for block in dropping.encoder.blocks] == [0.0, 0.45, 0.9]


def test_layers_for_layer_decay_are_the_embedding_each_block_and_the_rest() -> None:
    encoder = made("mage", num_classes=2, global_pool="token")
    groups = param_groups_layer_decay(encoder, layer_decay=0.5, no_weight_decay_list=encoder.no_weight_decay())
    scale = {id(weight): group["lr_scale"] for group in groups for weight in group["params"]}
    named = dict(encoder.named_parameters())
    steps = [
        "encoder.embedding.word.weight",
        "encoder.blocks.0.norm1.weight",
        "encoder.blocks.1.norm1.weight",
        "encoder.blocks.2.norm1.weight",
        "head.weight",
    ]
    scales = [scale[id(named[name])] for name in steps]
    assert scales == sorted(scales)
    assert len(set(scales)) == 5
    assert scales[-1] == 1
    assert len(scale) == sum(weight.requires_grad for weight in named.values())


def test_files_pass_timms_transform_as_the_librarys_own(tmp_path: Path) -> None:
    model = of("mage")
    encoder = timm.create_model("mage", model=model, pretrained=True).eval()
    levels = torch.randint(0, 256, (40, 30, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    picture = Image.fromarray(levels.numpy())
    transform = create_transform(**resolve_data_config({}, model=encoder))
    with torch.no_grad():
        features = encoder(transform(picture)[None])
    assert encoder.pretrained_cfg["input_size"] == (3, 8, 12)
    assert torch.nn.functional.cosine_similarity(features, model.features([picture])).item() > 0.9


def test_mean_and_deviation_of_the_configuration_are_undone(images: Tensor) -> None:
    model = of("pixels")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    overlay = {"mean": mean, "std": std}
    encoder = timm.create_model("mage", model=model, pretrained=True, pretrained_cfg_overlay=overlay).eval()
    shape = (1, 3, 1, 1)
    given = (images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    with torch.no_grad():
        assert torch.allclose(encoder(given), model.features(images), atol=1e-5)
    with pytest.raises(ValueError, match="pretrained_cfg_overlay"):
        timm.create_model("mage", model=model, pretrained_cfg={"mean": mean})


def test_a_loaded_model_is_copied_and_its_size_kept() -> None:
    model = of("mage")
    network = model.require_transformer()
    kept = {name: weight.clone() for name, weight in network.state_dict().items()}
    encoder = timm.create_model("mage", model=model, pretrained=True)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(1)
    assert all(torch.equal(weight, kept[name]) for name, weight in network.state_dict().items())
    assert network.encoder.blocks[0].mlp.drop1.p == 0.3
    with pytest.raises(ValueError, match="have 8 x 12 pixels, not 224 x 224"):
        timm.create_model("mage", model=model, img_size=224)
    network.to(torch.bfloat16)
    encoder = timm.create_model("mage", model=model, pretrained=True)
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}


def test_packaged_models_are_in_timms_list_with_their_sizes() -> None:
    names = [f"mage_{name}" for name in packaged.names()]
    assert set(timm.list_models("mage_*", pretrained=True)) == set(names)
    for name in packaged.names():
        model = mage.load(name)
        cfg = timm_models.default_cfgs[f"mage_{name}"].default
        assert cfg.input_size == (model.channels, *model.image_size)
        assert Path(str(cfg.file)).is_file()


def test_packaged_digits_by_name_also_for_colour_images() -> None:
    real, _ = read_examples("digits")
    grey = real[:4] / 255
    model = mage.load("digits", precision="float32")
    encoder = timm.create_model("mage_digits", pretrained=True).eval()
    colour = timm.create_model("mage_digits", pretrained=True, in_chans=3).eval()
    random = timm.create_model("mage_digits").eval()
    with torch.no_grad():
        features = encoder(normalised(grey))
        assert torch.allclose(features, model.features(grey), atol=1e-5)
        assert torch.allclose(colour(normalised(grey).expand(-1, 3, -1, -1)), features, atol=1e-3)
        assert not torch.allclose(random(normalised(grey)), features, atol=0.1), "without pretrained, random weights"
        with pytest.raises(ValueError, match=r"have 3 channels; .* in_chans"):
            encoder(normalised(grey).expand(-1, 3, -1, -1))
