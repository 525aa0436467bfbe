"""Tasks of MAGE-C and the rivals: masks of pairs, what is contrasted, what is logged, and that they run to a model."""

from pathlib import Path

import pytest
import torch

import mage
from mage import rng
from mage.masking import MaskRatioConfig
from mage.models import MAGE
from mage.models.contrastive import ContrastiveConfig
from mage.recipes import named, runs
from mage.recipes.inputs import open_data
from mage.recipes.rivals import pretrain_on_pixels
from mage.settings import override
from mage.training.contrastive import ContrastiveObjective, pair_mask
from mage.training.runlog import read_log

RATIOS = MaskRatioConfig(per_image=True)


def test_two_views_have_masks_of_their_own_and_share_ratios_if_asked() -> None:
    for share in (True, False):
        mask = pair_mask(RATIOS, 8, 20, rng.generator(0), share_ratio=share)
        first, second = mask.masked.chunk(2)
        assert not torch.equal(first, second)
        assert torch.equal(first.sum(dim=1), second.sum(dim=1)) == share
        assert mask.num_kept == 10
    shared = pair_mask(MaskRatioConfig(), 8, 20, rng.generator(0), share_ratio=False).masked.sum(dim=1).view(2, 8)
    assert all(len(set(counts)) == 1 for counts in shared.tolist())


@pytest.fixture
def objective() -> ContrastiveObjective:
    recipe = named("smoke")
    torch.manual_seed(0)
    return ContrastiveObjective(MAGE(recipe.model, mage.Vocabulary.fresh(16), (4, 4)), ContrastiveConfig(weight=0.1))


def test_contrast_moves_the_encoder_but_not_the_decoder(objective: ContrastiveObjective) -> None:
    objective.eval()
    tokens = torch.randint(16, (8, 16), generator=rng.generator(0))
    mask = pair_mask(RATIOS, 4, 16, rng.generator(1), share_ratio=False)
    found = objective(tokens, mask, torch.ones(4, dtype=torch.bool))
    found.contrastive.backward()
    moved = {name for name, parameter in objective.named_parameters() if parameter.grad is not None}
    assert "network.encoder.blocks.0.attn.qkv.weight" in moved
    assert "projection.layers.0.weight" in moved
    assert not [name for name in moved if "decoder" in name or "head" in name]
    plain = objective.network.loss(objective.network(tokens, mask), tokens, mask)
    torch.testing.assert_close(found.reconstruction, plain)


def test_a_view_that_holds_still_halves_the_gradient_at_equal_views(objective: ContrastiveObjective) -> None:
    """With both views equal the two halves of the gradient are equal too, so half of it is missing."""
    objective.eval()
    tokens = torch.randint(16, (4, 16), generator=rng.generator(0)).repeat(2, 1)
    mask = pair_mask(RATIOS, 4, 16, rng.generator(1), share_ratio=True)
    mask = mage.masking.Mask(mask.masked[:4].repeat(2, 1), mask.dropped[:4].repeat(2, 1))
    gradients = []
    for still in (False, True):
        object.__setattr__(objective.config, "stop_gradient", still)
        objective.zero_grad()
        objective(tokens, mask, torch.ones(4, dtype=torch.bool)).contrastive.backward()
        gradient = objective.projection.layers[0].weight.grad  # type: ignore[union-attr]
        assert isinstance(gradient, torch.Tensor)
        gradients.append(gradient.clone())
    torch.testing.assert_close(gradients[1], gradients[0] / 2, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that was trained for a few steps."""
    folder = tmp_path_factory.mktemp("trained") / "tokenizer"
    runs.train_tokenizer(named("smoke"), folder, progress=False)
    return folder


CONTRAST = ["contrastive.weight=0.1", "data.online_images=200", "masking.per_image=true", "contrastive.max_ratio=0.8"]


def test_mage_c_trains_on_a_cache_with_two_views_and_needs_them(tmp_path: Path, tokenizer_folder: Path) -> None:
    tokenizer = runs.load_tokenizer(tokenizer_folder)
    recipe = override(named("smoke"), [*CONTRAST, "data.views=2"])
    cache = runs.tokenize(recipe, tokenizer, tmp_path / "tokens")
    result = runs.pretrain(recipe, tokenizer, tmp_path / "run", cache=cache, progress=False)
    assert 0 < result.metrics["online/knn"] <= 1
    assert 0 < result.metrics["online/linear"] <= 1
    line = next(line for line in read_log(tmp_path / "run") if "contrastive" in line)
    assert line["loss"] == pytest.approx(line["reconstruction"] + 0.1 * line["contrastive"], rel=1e-4)
    assert mage.load(tmp_path / "run").generate(1, steps=2).shape == (1, 1, 8, 8)
    single = runs.tokenize(override(recipe, ["data.views=1"]), tokenizer, tmp_path / "single")
    with pytest.raises(ValueError, match="two are contrasted"):
        runs.pretrain(recipe, tokenizer, tmp_path / "other", cache=single, progress=False)
    assert not (tmp_path / "other").exists()


def test_mage_c_trains_online_and_from_another_model(tmp_path: Path, tokenizer_folder: Path) -> None:
    tokenizer = runs.load_tokenizer(tokenizer_folder)
    recipe = override(named("smoke"), [*CONTRAST, "data.transform.augmentation=shift", "pretraining.steps=3"])
    runs.pretrain(recipe, tokenizer, tmp_path / "run", progress=False)
    old = mage.load(tmp_path / "run")
    changes = ["pretraining.steps=1", "pretraining.base_learning_rate=1e-9", "pretraining.ema_decay=0"]
    runs.pretrain(override(named("smoke"), changes), tokenizer, tmp_path / "next", init_from=old, progress=False)
    for name, tensor in mage.load(tmp_path / "next").transformer.state_dict().items():
        torch.testing.assert_close(tensor, old.transformer.state_dict()[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["mae", "simclr"])
def test_rivals_train_to_a_model_with_features(tmp_path: Path, method: str) -> None:
    changes = [f"method={method}", "pixels.patch_size=2", "data.online_images=200"]
    changes += ["pixels.mae={decoder_width: 16, decoder_depth: 1, decoder_heads: 2}"] if method == "mae" else []
    recipe = override(named("smoke"), changes)
    result = pretrain_on_pixels(recipe, tmp_path / "run", progress=False)
    assert 0 < result.metrics["online/knn"] <= 1
    model = mage.load(tmp_path / "run")
    assert (model.channels, model.image_size) == (1, (8, 8))
    pictures = torch.stack([open_data("digits", "test", recipe, None).load(index) for index in range(3)]) / 255
    assert model.features(pictures).shape == (3, 16)
    assert model.forward_intermediates(pictures, 1)[0].shape == (3, 16, 4, 4)
    with pytest.raises(ValueError, match="cannot generate"):
        model.generate(1)
    again = model.save(tmp_path / "copy")
    torch.testing.assert_close(mage.load(again).features(pictures), model.features(pictures))


def test_maskgit_trains_and_generates(tmp_path: Path, tokenizer_folder: Path) -> None:
    changes = ["model.decoder_depth=0", "masking.drop=false", "masking.distribution=cosine", "masking.low=0.01"]
    with pytest.raises(ValueError, match=r"masking\.drop=false"):
        override(named("smoke"), changes[:1])
    recipe = override(named("smoke"), changes)
    runs.pretrain(recipe, runs.load_tokenizer(tokenizer_folder), tmp_path / "run", progress=False)
    model = mage.load(tmp_path / "run")
    assert model.generate(2, steps=3).shape == (2, 1, 8, 8)
    assert model.features(torch.rand(2, 1, 8, 8)).shape == (2, 16)
