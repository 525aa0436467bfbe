"""Recipes as values and as YAML; their budgets; tables of results."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import mage
from mage import settings
from mage.recipes import RECIPES, named
from mage.recipes.resolve import Choice, from_yaml, resolve
from mage.recipes.schema import to_yaml
from mage.runs.budget import block_flops, budget
from mage.runs.inputs import trained_on
from mage.settings import override, to_dict

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_yaml(name: str, tmp_path: Path) -> None:
    recipe = named(name)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert from_yaml(tmp_path / "recipe.yaml") == recipe
    assert settings.differences(settings.to_dict(recipe), yaml.safe_load(to_yaml(recipe))) == []


@pytest.mark.parametrize(("name", "encoder_millions"), [("imagenet-base", 86), ("imagenet-large", 304)])
def test_imagenet_budgets_are_the_published_sizes(name: str, encoder_millions: float) -> None:
    cost = budget(named(name), 1_281_167)
    words_and_positions = (2026 - 1000 + 257) * (768 if name == "imagenet-base" else 1024)
    assert (cost["encoder_parameters"] - words_and_positions) / 1e6 == pytest.approx(encoder_millions, rel=0.02)
    assert cost["tokenizer_parameters"] == pytest.approx(54.5e6, rel=1e-3)  # docs/method.md, Tokens and grid
    assert cost["token_cache_bytes"] / 10 == pytest.approx(656e6, rel=1e-3)  # docs/method.md, Optimisation
    assert cost["steps"] == round(1600 * 1_281_167 / 4096)


def test_flops_of_a_block_counted_by_hand() -> None:
    width, length = 4, 3
    macs = length * width * 3 * width  # qkv
    macs += 2 * length * length * width  # scores, weighted sum
    macs += length * width * width  # projection
    macs += 2 * length * width * 4 * width  # MLP
    assert block_flops(width, 4.0, length) == 2 * macs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.width=1.5", "model.width must be int"),
        ("tokenizer.quantizer.kind=magic", "there is no quantizer 'magic'; there are vq, ema, normalized"),
        ("tokenizer.image_size=[8]", "tokenizer.image_size must be"),
        ("data.transform.size=[16, 16]", "must agree"),
        ("pretraining.accumulation=3", "must be a multiple of accumulation 3"),
        ("pretraining.betas=0.9", "pretraining.betas must be"),
        ("pretraining.layer_decay=0.75", "pretraining.layer_decay must be 1: only fine-tuning"),
        ("tokenizer_training.layer_decay=0.75", "tokenizer_training.layer_decay must be 1: only fine-tuning"),
        ("pretraining.clip=-1", "clip and weight_decay must be 0 or more, not -1"),
        ("pretraining.warmup=500", "warmup is a share of the training, from 0 to 1, not 500"),
        ("tokenizer_loss.perceptual_share=2", "perceptual_share is a share of the batch, above 0 to 1, not 2"),
    ],
)
def test_a_wrong_setting_is_named(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings.override(named("smoke"), [change])


def test_overrides_reach_their_place() -> None:
    changed = settings.override(named("smoke"), ["pretraining.base_learning_rate=1e-4", "tokenizer.multipliers=[1]"])
    assert changed.pretraining.base_learning_rate == 1e-4
    assert changed.tokenizer.multipliers == (1,)


def test_epochs_that_a_user_sets_count_though_the_recipe_has_steps() -> None:
    for change in ("pretraining.epochs=50", " pretraining.epochs = 50"):
        recipe = resolve(Choice("mnist5k", changes=(change,)))
        assert recipe.pretraining.num_steps(9600) == 50 * 9600 // recipe.pretraining.batch_size
    assert recipe.tokenizer_training == named("mnist5k").tokenizer_training
    with pytest.raises(ValueError, match=r"no setting 'pretrain\.epochs'"):
        resolve(Choice("mnist5k", changes=("pretrain.epochs=50",)))
    both = resolve(Choice("mnist5k", changes=("pretraining.epochs=50", "pretraining.steps=7")))
    assert both.pretraining.num_steps(9600) == 7


def test_tables_in_readme_and_docs_are_those_of_the_results() -> None:
    subprocess.run([sys.executable, str(ROOT / "docs" / "tables.py"), "--check"], check=True)


def test_only_the_user_names_data_in_a_store() -> None:
    """A model or tokenizer of somebody else must not decide what this machine contacts."""
    address = "s3://bucket/x-{0000..0009}.tar"
    base = to_dict(override(named("smoke"), [f"data.name={address}"]))
    with pytest.raises(ValueError, match="read only if you say so: --data"):
        resolve(Choice(), base=base)
    assert resolve(Choice(data=address), base=base).data.name == address
    assert resolve(Choice(changes=[f"data.name={address}"]), base=base).data.name == address
    assert resolve(Choice(data="digits"), base=base).data.name == "digits"
    with pytest.raises(ValueError, match="read only if you say so: --data"):
        trained_on(mage.Mage(None, None, recipe=base))
    assert trained_on(mage.Mage(None, None, recipe={})) is None
    assert trained_on(mage.Mage(None, None, recipe=to_dict(named("smoke")))) == "digits"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (None, "mnist5k"), ("mnist5k", "mnist5k"), ("Fashion_MNIST", "mnist5k"), ("cifar100", "cifar10"),
        ("photos/", "photos64"), ("shards/x-{0000..0009}.tar", "photos64"),
    ],
)  # fmt: skip
def test_without_a_recipe_the_data_choose_one(data: str | None, name: str) -> None:
    recipe = resolve(Choice(data=data))
    assert recipe.name == name
    if data is not None:
        assert recipe.data.name == data
        assert resolve(Choice(changes=[f"data.name={data}"])) == recipe
    assert resolve(Choice(recipe="smoke", data=data)).name == "smoke"
