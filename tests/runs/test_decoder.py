"""A decoder that learns to make images of tokens which the model draws: what is redrawn, what changes, what is kept."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mage
from mage import images, runs
from mage.data.datasets import load_dataset
from mage.recipes import named
from mage.recipes.resolve import Choice
from mage.runs.decoder import decoder_recipe
from mage.runs.initial_weights import start_tokenizer_from
from mage.sampling.settings import SamplingConfig
from mage.settings import override
from mage.share import Share, Turn
from mage.tokenizers import VQGAN
from mage.training.redraw import Redraw
from tests.reference.launches import quiet

FEW = ("tokenizer_training.steps=6", "tokenizer_training.batch_size=8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of scikit-learn's digits with classes, after a few steps."""
    root = tmp_path_factory.mktemp("trained")
    recipe = override(named("smoke"), ["method.conditions.source=labels", "sampling.guidance=1"])
    runs.train_tokenizer(recipe, quiet(root / "tokenizer"))
    runs.pretrain(recipe, quiet(root / "run"), runs.load_tokenizer(root / "tokenizer"))
    return root / "run"


@pytest.fixture
def model(trained: Path) -> mage.Mage:
    return mage.load(trained, device="cpu", precision="float32")


def redraw_of(model: mage.Mage, largest: float) -> Redraw:
    return Redraw(model.require_generator(), model.sampling, largest=largest, seed=3)


def some_tokens(model: mage.Mage, count: int) -> Tensor:
    return torch.randint(model.tokenizer.num_codes, (count, *model.tokenizer.grid))


def test_up_to_the_largest_share_of_the_tokens_is_drawn_anew(model: mage.Mage) -> None:
    ids = some_tokens(model, 64)
    turn = Turn(step=5, part=0, share=Share(64))
    changed = (redraw_of(model, 0.5)(ids, turn) != ids).flatten(1).sum(dim=1)
    assert changed.max() <= 8, "of 16 tokens"
    assert changed.float().mean() > 2, "random tokens are hardly ever drawn again"
    assert len(changed.unique()) > 4, "of each image another share"
    everything = (redraw_of(model, 1.0)(ids, turn) != ids).flatten(1).sum(dim=1)
    assert everything.max() > 12


def test_what_is_drawn_depends_on_seed_step_and_row_and_not_on_the_division_of_the_batch(model: mage.Mage) -> None:
    ids, redraw = some_tokens(model, 8), redraw_of(model, 0.8)
    whole = redraw(ids, Turn(2, 0, Share(8)))
    assert torch.equal(redraw(ids, Turn(2, 0, Share(8))), whole)
    assert not torch.equal(redraw(ids, Turn(3, 0, Share(8))), whole)
    pieces = []
    for part in range(2):
        for rank in range(2):
            turn = Turn(2, part, Share(8, parts=2, rank=rank, world_size=2))
            pieces.append(redraw(ids[turn.rows.start : turn.rows.stop], turn))
    assert torch.equal(torch.cat(pieces), whole)


def test_the_models_own_sampler_draws_without_guidance(model: mage.Mage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SamplingConfig] = []
    module = __import__("mage.training.redraw", fromlist=["fill"])

    def spy(*arguments: object, settings: SamplingConfig, **more: object) -> object:
        seen.append(settings)
        return [torch.zeros(2, 16, dtype=torch.int64)]

    monkeypatch.setattr(module, "fill", spy)
    model.recipe["sampling"] = {"guidance": 2.0, "order": "halton", "steps": 20, "revisions": 1}
    redraw_of(model, 0.5)(some_tokens(model, 2), Turn(0, 0, Share(2)))
    assert seen == [SamplingConfig(order="halton", steps=4)]


def test_only_the_decoder_changes_and_the_run_holds_the_whole_model(model: mage.Mage, tmp_path: Path) -> None:
    recipe = decoder_recipe(model, Choice(changes=FEW))
    before = {name: tensor.clone() for name, tensor in model.tokenizer.state_dict().items()}
    result = runs.train_tokenizer(recipe, quiet(tmp_path / "run"), redrawn_by=model)
    assert result.steps == 6
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.tokenizer.state_dict().items())
    tuned = mage.load(tmp_path / "run", device="cpu", precision="float32")
    changed = {
        name.split(".")[0]
        for name, tensor in tuned.tokenizer.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == {"decoder"}
    assert torch.equal(tuned.generate_tokens(3, seed=0), model.generate_tokens(3, seed=0)), "the network is the same"
    assert not torch.equal(tuned.generate(3, seed=0), model.generate(3, seed=0))
    assert (tuned.class_names, tuned.sampling) == (model.class_names, model.sampling)
    assert tuned.recipe == model.recipe, "the recipe is that of the network"
    assert tuned.notes["decoder"]["tokenizer_loss"]["redrawn"] == 0.5
    assert next(tuned.transformer.parameters()).requires_grad


def test_a_decoder_gets_more_blocks_that_do_nothing_at_first(model: mage.Mage, tmp_path: Path) -> None:
    deeper = ("tokenizer.decoder_blocks=4", "tokenizer_loss.redrawn=0")
    recipe = decoder_recipe(model, Choice(changes=(*FEW, *deeper)))
    tokenizer = VQGAN(recipe.tokenizer)
    start_tokenizer_from(tokenizer, model.tokenizer)
    ids = some_tokens(model, 4)
    assert torch.equal(tokenizer.decode(ids), model.tokenizer.decode(ids))
    runs.train_tokenizer(recipe, quiet(tmp_path / "run"), redrawn_by=model)
    tuned = mage.load(tmp_path / "run", device="cpu", precision="float32")
    assert tuned.tokenizer.config.decoder_blocks == tuned.recipe["tokenizer"]["decoder_blocks"] == 4
    assert tuned.tokenizer.fingerprint() == model.tokenizer.fingerprint(), "tokens mean the same"
    added = [block for level in tuned.tokenizer.decoder.levels for block in level[-2:]]
    assert all(block.conv2.weight.any() for block in added), "they have learned"


def test_a_tokenizer_of_other_sizes_is_no_start(model: mage.Mage, tmp_path: Path) -> None:
    own = decoder_recipe(model, Choice(changes=FEW))
    for change, words in (("width=8", "other sizes"), ("decoder_blocks=0", "would leave some out")):
        with pytest.raises(ValueError, match=words):
            decoder_recipe(model, Choice(changes=(*FEW, f"tokenizer.{change}")))
        with pytest.raises(ValueError, match=words):
            runs.train_tokenizer(override(own, [f"tokenizer.{change}"]), quiet(tmp_path / "run"), redrawn_by=model)
    assert not list(tmp_path.iterdir())


def test_the_encoder_of_a_model_stays_as_its_network_knows_it(model: mage.Mage, tmp_path: Path) -> None:
    changes = ("tokenizer_loss.redrawn=0", "tokenizer_loss.freeze_encoder=false")
    recipe = decoder_recipe(model, Choice(changes=changes))
    with pytest.raises(ValueError, match="would change the tokens"):
        runs.train_tokenizer(recipe, quiet(tmp_path / "run"), redrawn_by=model)
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_only_with_the_network_that_redraws(model: mage.Mage, tmp_path: Path) -> None:
    launch = quiet(tmp_path / "run")
    few = decoder_recipe(model, Choice(changes=("tokenizer_training.steps=1", "tokenizer_training.batch_size=8")))
    runs.train_tokenizer(few, launch, redrawn_by=model)
    with torch.no_grad():
        next(model.transformer.parameters()).add_(1)
    with pytest.raises(ValueError, match=r"started with other settings: redrawn_by: .* is not"):
        runs.train_tokenizer(
            override(few, ["tokenizer_training.steps=2"]), replace(launch, resume=True), redrawn_by=model
        )


def test_the_recipe_is_the_models_own_with_the_users_changes_last(model: mage.Mage) -> None:
    recipe = decoder_recipe(model, Choice(changes=("tokenizer_loss.redrawn=0.25", "tokenizer_training.epochs=3")))
    assert recipe.tokenizer_training.num_steps(640) == round(3 * 640 / recipe.tokenizer_training.batch_size)
    assert recipe.tokenizer == model.tokenizer.config
    assert (recipe.tokenizer_loss.freeze_encoder, recipe.tokenizer_loss.redrawn) == (True, 0.25)
    own = named("smoke").tokenizer_training.base_learning_rate
    assert recipe.tokenizer_training.base_learning_rate == pytest.approx(own / 4)


def test_a_decoder_that_is_trained_on_redrawn_tokens_makes_better_images_of_them(
    model: mage.Mage, tmp_path: Path
) -> None:
    changes = ("tokenizer_training.steps=150", "tokenizer_training.batch_size=32", "tokenizer_loss.redrawn=0.8")
    changes += ("tokenizer_training.base_learning_rate=0.004",)
    recipe = decoder_recipe(model, Choice(changes=changes))
    runs.train_tokenizer(recipe, quiet(tmp_path / "run"), redrawn_by=model)
    tuned = mage.load(tmp_path / "run", device="cpu", precision="float32")
    test = load_dataset("digits", split="test")
    pixels = images.to_float(torch.stack([test.load(index) for index in range(200)]))
    redrawn = redraw_of(model, 0.8)(model.encode(pixels), Turn(10**6, 0, Share(200)))
    errors = [((one.decode_tokens(redrawn) - pixels) ** 2).mean().item() for one in (model, tuned)]
    assert errors[1] < 0.95 * errors[0]


def test_what_cannot_be_trained_is_refused(model: mage.Mage, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="redrawn is a share"):
        override(named("smoke"), ["tokenizer_loss.freeze_encoder=true", "tokenizer_loss.redrawn=1.5"])
    with pytest.raises(ValueError, match=r"needs tokenizer_loss\.freeze_encoder"):
        override(named("smoke"), ["tokenizer_loss.redrawn=0.5"])
    recipe = decoder_recipe(model, Choice())
    with pytest.raises(ValueError, match="needs the model that redraws"):
        runs.train_tokenizer(recipe, quiet(tmp_path / "a"), init_from=model.tokenizer)
    alone = runs.load_tokenizer(trained)
    with pytest.raises(ValueError, match="transformer"):
        decoder_recipe(alone, Choice())
    foreign = mage.Mage(FakeTokenizer(model), model.transformer, recipe=model.recipe, device="cpu")
    with pytest.raises(ValueError, match="no VQGAN"):
        decoder_recipe(foreign, Choice())
    with pytest.raises(ValueError, match="no VQGAN"):
        runs.train_tokenizer(recipe, quiet(tmp_path / "b"), redrawn_by=foreign)
    assert not list(tmp_path.iterdir())


class FakeTokenizer(torch.nn.Module):
    """A tokenizer of another make."""

    def __init__(self, model: mage.Mage) -> None:
        super().__init__()
        own = model.tokenizer
        self.channels, self.image_size, self.grid = own.channels, own.image_size, own.grid
        self.num_codes = own.num_codes

    def encode(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, ids: Tensor) -> Tensor:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return "fake"
