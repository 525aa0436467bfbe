"""Tasks of MAGE-C and the baselines: masks of pairs, contrastive losses, logged metrics, exported models."""

from pathlib import Path

import pytest
import torch

import mage
from mage import rng, runs
from mage.masking import MaskRatioConfig
from mage.models import MAGETransformer
from mage.models.contrastive import ContrastiveConfig
from mage.recipes import named
from mage.runs.inputs import open_data
from mage.settings import override
from mage.training.contrastive import ContrastiveObjective, pair_mask
from mage.training.runlog import read_log
from tests.reference.launches import quiet

RATIOS = MaskRatioConfig(per_image=True)


def test_two_views_have_masks_of_their_own_and_share_ratios_if_asked() -> None:
    for share in (True, False):
        mask = pair_mask(RATIOS, 8, 20, rng.generator(0), range(8), share_ratio=share).mask
        first, second = mask.masked.chunk(2)
        assert not torch.equal(first, second)
        assert torch.equal(first.sum(dim=1), second.sum(dim=1)) == share
        assert mask.num_kept == 10
    shared = (
        pair_mask(MaskRatioConfig(), 8, 20, rng.generator(0), range(8), share_ratio=False)
        .mask.masked.sum(dim=1)
        .view(2, 8)
    )
    assert all(len(set(counts)) == 1 for counts in shared.tolist())


@pytest.fixture
def objective() -> ContrastiveObjective:
    recipe = named("smoke")
    torch.manual_seed(0)
    return ContrastiveObjective(
        MAGETransformer(recipe.model, mage.Vocabulary.fresh(16), (4, 4)), ContrastiveConfig(weight=0.1)
    )


def test_contrast_moves_the_encoder_but_not_the_decoder(objective: ContrastiveObjective) -> None:
    objective.eval()
    tokens = torch.randint(16, (8, 16), generator=rng.generator(0))
    mask = pair_mask(RATIOS, 4, 16, rng.generator(1), range(4), share_ratio=False).mask
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
    mask = pair_mask(RATIOS, 4, 16, rng.generator(1), range(4), share_ratio=True).mask
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
    runs.train_tokenizer(named("smoke"), quiet(folder))
    return folder


CONTRAST = [
    "method={name: mage-c, masking: {per_image: true}, contrastive: {weight: 0.1, max_ratio: 0.8}}",
    "data.online_images=200",
]


def test_mage_c_trains_on_a_cache_with_two_views_and_needs_them(tmp_path: Path, tokenizer_folder: Path) -> None:
    tokenizer = runs.load_tokenizer(tokenizer_folder)
    recipe = override(named("smoke"), [*CONTRAST, "data.views=2"])
    cache = runs.tokenize(recipe, quiet(tmp_path / "tokens"), tokenizer)
    result = runs.pretrain(recipe, quiet(tmp_path / "run"), tokenizer, cache=cache)
    assert 0 < result.metrics["online/knn"] <= 1
    assert 0 < result.metrics["online/linear"] <= 1
    line = next(line for line in read_log(tmp_path / "run") if "contrastive" in line)
    assert line["loss"] == pytest.approx(line["reconstruction"] + 0.1 * line["contrastive"], rel=1e-4)
    assert mage.load(tmp_path / "run").generate(1, steps=2).shape == (1, 1, 8, 8)
    single = runs.tokenize(override(recipe, ["data.views=1"]), quiet(tmp_path / "single"), tokenizer)
    with pytest.raises(ValueError, match="the method contrasts two"):
        runs.pretrain(recipe, quiet(tmp_path / "other"), tokenizer, cache=single)
    assert not (tmp_path / "other").exists()


def test_mage_c_trains_online_and_from_another_model(tmp_path: Path, tokenizer_folder: Path) -> None:
    tokenizer = runs.load_tokenizer(tokenizer_folder)
    recipe = override(named("smoke"), [*CONTRAST, "data.transform.augmentation=shift", "pretraining.steps=3"])
    runs.pretrain(recipe, quiet(tmp_path / "run"), tokenizer)
    old = mage.load(tmp_path / "run")
    changes = ["pretraining.steps=1", "pretraining.base_learning_rate=1e-9", "pretraining.ema_decay=0"]
    runs.pretrain(override(named("smoke"), changes), quiet(tmp_path / "next"), tokenizer, init_from=old)
    for name, tensor in mage.load(tmp_path / "next").transformer.state_dict().items():
        torch.testing.assert_close(tensor, old.transformer.state_dict()[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["mae", "simclr"])
def test_baselines_train_to_a_model_with_features(tmp_path: Path, method: str) -> None:
    more = ", mae: {decoder_width: 16, decoder_depth: 1, decoder_heads: 2}" if method == "mae" else ""
    changes = [f"method={{name: {method}, patch_size: 2{more}}}", "data.online_images=200", "data.channels=1"]
    changes.append("tokenizer=null")
    recipe = override(named("smoke"), changes)
    result = runs.pretrain(recipe, quiet(tmp_path / "run"))
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
    changes = ["model.decoder_depth=0", "method={name: maskgit}"]
    with pytest.raises(ValueError, match=r"masking\.drop=false"):
        override(named("smoke"), changes[:1])
    with pytest.raises(ValueError, match="maskgit has no decoder"):
        override(named("smoke"), changes[1:])
    recipe = override(named("smoke"), changes)
    runs.pretrain(recipe, quiet(tmp_path / "run"), runs.load_tokenizer(tokenizer_folder))
    model = mage.load(tmp_path / "run")
    assert model.generate(2, steps=3).shape == (2, 1, 8, 8)
    assert model.features(torch.rand(2, 1, 8, 8)).shape == (2, 16)


def test_what_mage_c_cannot_train_is_refused_before_anything_is_read() -> None:
    recipe = named("cifar10-mage-c")
    wrong = {
        "model.decoder_depth=0": "decoder_depth=0 needs method.masking.drop=false",
        "method.contrastive.max_ratio=0.8": "needs method.masking.per_image=true",
    }
    for change, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            override(recipe, [change, "method.masking.per_image=false"])
