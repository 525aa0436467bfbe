"""Codes, sizes, batches and steps for few images and little time; nothing changes where there is enough of both."""

import pickle
from dataclasses import replace

import pytest

from mage.recipes import fitting, named
from mage.recipes.fitting import (
    FEWEST_BATCHES,
    FEWEST_CODES,
    FEWEST_STEPS,
    MOST_PASSES,
    SHARE_OF_STEPS,
    block_parameters,
    fit_batch,
    fit_codes,
    fit_depth,
    fit_sizes,
    fit_steps,
    smaller,
    unfitted,
)  # fmt: skip
from mage.recipes.schema import Recipe
from mage.training.optim import OptimConfig


def test_three_hundred_photographs_do_not_get_thousands_of_codes_and_passes() -> None:
    recipe = fit_sizes(named("cifar10"), "tokenizer_training", 300)
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.quantizer.num_codes == 128, "19,200 tokens, each code 100 times and more"
    fit = fit_steps(recipe, "tokenizer_training", 300, seconds_per_step=0.1, minutes=600)
    assert fit.bound == "passes"
    assert fit.steps * recipe.tokenizer_training.batch_size <= 400 * 300 + recipe.tokenizer_training.batch_size
    assert fit.steps == fit.recipe.tokenizer_training.steps
    assert fit.seconds < 600 * 60 / 2, "the rest of the time would only repeat the images"


def test_a_large_data_set_keeps_the_recipe() -> None:
    recipe = named("cifar10")
    assert fit_sizes(recipe, "tokenizer_training", 48_000) == recipe
    assert fit_sizes(recipe, "pretraining", 48_000) == recipe
    imagenet = named("imagenet-base")
    assert fit_sizes(imagenet, "pretraining", 1_281_167) == imagenet


@pytest.mark.parametrize(
    ("codes", "tokens", "expected"),
    [(4096, 10**9, 4096), (4096, 204_800, 2048), (4096, 204_799, 1024), (4096, 10, FEWEST_CODES), (16, 10, 16)],
)
def test_a_code_occurs_a_hundred_times_or_there_are_the_fewest(codes: int, tokens: int, expected: int) -> None:
    assert fit_codes(codes, tokens) == expected


def test_a_short_training_has_codes_that_it_meets_often() -> None:
    recipe = named("mnist5k")

    def codes(minutes: float) -> int:
        fit = fit_steps(recipe, "tokenizer_training", 3600, seconds_per_step=0.1, minutes=minutes)
        assert fit.recipe.tokenizer is not None
        return fit.recipe.tokenizer.quantizer.num_codes

    assert codes(0.9) == 128, "459 steps of 32 images of 49 tokens, 5,600 for each code"
    assert codes(2.5) == 512
    longer = fit_steps(recipe, "tokenizer_training", 3600, seconds_per_step=0.1, minutes=0.9, continued=True)
    assert longer.recipe.tokenizer == recipe.tokenizer, "the codes of a trained tokenizer stay"


def test_codes_of_a_fixed_grid_stay() -> None:
    recipe = named("cifar10")
    assert recipe.tokenizer is not None
    levels = replace(recipe.tokenizer.quantizer, kind="fsq", num_codes=4096, levels=(8, 8, 8, 8))
    fixed = replace(recipe, tokenizer=replace(recipe.tokenizer, quantizer=levels, code_width=4))
    assert fit_sizes(fixed, "tokenizer_training", 300).tokenizer == fixed.tokenizer


def test_pre_training_keeps_the_codes_of_its_tokenizer() -> None:
    recipe = named("cifar10")
    assert fit_sizes(recipe, "pretraining", 300).tokenizer == recipe.tokenizer


def test_few_tokens_get_fewer_blocks_but_not_fewer_than_two() -> None:
    model = named("cifar10").model
    small = fit_depth(model, 300 * 64)
    assert small == replace(model, depth=2)
    assert block_parameters(small) < block_parameters(model) / 2
    assert fit_depth(model, 10**8) == model
    assert fit_depth(replace(model, width=1024, heads=16), 1).depth == 2


@pytest.mark.parametrize(("images", "expected"), [(10**6, 128), (1024, 128), (300, 32), (100, 16), (20, 16), (7, 7)])
def test_a_pass_has_several_batches_where_there_are_images_for_it(images: int, expected: int) -> None:
    optim = fit_batch(OptimConfig(batch_size=128, accumulation=2), images)
    assert optim.batch_size == expected
    assert optim.batch_size % optim.accumulation == 0
    assert expected in (16, 7) or images >= FEWEST_BATCHES * expected


def test_a_batch_is_not_halved_below_the_smallest() -> None:
    assert fit_batch(OptimConfig(batch_size=96), 100).batch_size == 16


def test_steps_fill_the_minutes_and_short_runs_are_watched() -> None:
    recipe = named("cifar10")
    fit = fit_steps(recipe, "pretraining", 48_000, seconds_per_step=2.0, minutes=10)
    assert fit.steps == int(600 * SHARE_OF_STEPS / 2)
    assert fit.bound == "minutes"
    assert fit.seconds == pytest.approx(600, rel=0.01)
    assert fit.recipe.run.observe_every <= fit.steps // 4
    assert fit.recipe.run.log_every <= fit.steps // 20
    assert fit.recipe.tokenizer_training == recipe.tokenizer_training, "the other training is not changed"
    for before in (recipe, fit.recipe):  # a model's own recipe holds the intervals of its own few steps
        long = fit_steps(unfitted(before), "pretraining", 48_000, seconds_per_step=0.01, minutes=600)
        assert long.recipe.run == recipe.run
    quarter = recipe.pretraining.steps // 4
    own = replace(recipe, name="mine", run=replace(recipe.run, checkpoint_every=quarter, log_every=7))
    long = fit_steps(own, "pretraining", 48_000, seconds_per_step=0.01, minutes=600)
    assert (long.recipe.run.checkpoint_every, long.recipe.run.log_every) == (quarter, 7), "the user's own"
    assert long.steps <= -(-MOST_PASSES["pretraining"] * 48_000 // recipe.pretraining.batch_size)


def test_too_few_minutes_are_refused_with_those_that_are_enough() -> None:
    recipe = named("cifar10")
    with pytest.raises(ValueError, match=r"1 minutes are 5 steps of 10 s .* give at least 40") as caught:
        fit_steps(recipe, "pretraining", 48_000, seconds_per_step=10.0, minutes=1)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value), "as other processes receive it"
    needed = int(str(caught.value).split("at least ")[1].split(",")[0])
    assert fit_steps(recipe, "pretraining", 48_000, seconds_per_step=10.0, minutes=needed).steps >= FEWEST_STEPS
    assert fitting.FEWEST_STEPS > 60, "the codebook's warm-up"


def test_a_smaller_recipe_has_fewer_blocks_then_smaller_batches_and_ends() -> None:
    recipe, seen, peaks = named("mnist5k"), [], []
    current: Recipe | None = recipe
    while current is not None:
        seen.append((current.pretraining.batch_size, current.model.depth))
        peaks.append(current.pretraining.peak_learning_rate / recipe.pretraining.peak_learning_rate)
        current = smaller(current, "pretraining")
    assert seen == [(96, 8), (96, 4), (96, 2), (48, 2), (24, 2)]
    assert peaks == [1, 2, 2, 2, 2], "smaller batches keep the learning rate"
    widths, current = [], recipe
    while current is not None:
        assert current.tokenizer is not None
        widths.append((current.tokenizer_training.batch_size, current.tokenizer.width))
        current = smaller(current, "tokenizer_training")
    assert widths == [(32, 128), (16, 128), (16, 64), (16, 32)]
