"""`mage train-tokenizer`: images -> a tokenizer."""

from dataclasses import asdict

import mage
from mage import runs
from mage.cli.arguments import choice_of, launch_of
from mage.cli.console import emit, note, skipped_sentence
from mage.cli.options.train_tokenizer import Options
from mage.recipes import resolve
from mage.recipes.fitting import unfitted
from mage.runs.decoder import decoder_recipe
from mage.runs.fitted import fitted_recipe
from mage.runs.inputs import training_data
from mage.runs.reading import reading_of

PARALLEL = True


def run(options: Options) -> None:
    """Train and print the quality of reconstructions."""
    launch, choice = launch_of(options), choice_of(options)
    model = None
    if options.decoder_of is not None:
        model = mage.load(options.decoder_of, precision=options.precision, device=options.device)
    recipe = resolve(choice) if model is None else decoder_recipe(model, choice)
    of_model = model is not None and not (options.recipe or options.config)
    if model is None and options.data is not None and not (options.recipe or options.config):
        note(options, f"recipe: {recipe.name}, which fits the data; --recipe takes another")
    if options.minutes is not None:
        launch.check_out()
        train = training_data(recipe, launch.data_root).train
        recipe = fitted_recipe(
            unfitted(recipe) if of_model else recipe, launch, "tokenizer_training", len(train), options.minutes,
            continued=model is not None,
            reading=reading_of(recipe, train, recipe.data.tokenizer_transform, launch.workers),
            changes=choice.changes,
        )  # fmt: skip
    result = runs.train_tokenizer(recipe, launch, redrawn_by=model)
    metrics = result.metrics
    emit(
        options,
        {"out": str(options.out), **asdict(result)},
        f"{options.out}: {result.steps} steps in {result.seconds:.0f} s; "
        f"held-out images: PSNR {metrics['psnr_db']:.2f} dB, {metrics['codes_used']:.1%} of the codes used, "
        f"perplexity {metrics['codebook_perplexity']:.0f}{skipped_sentence(result.skipped)}",
    )
