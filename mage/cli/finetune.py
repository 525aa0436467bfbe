"""`mage finetune`: train a pre-trained model on labels."""

from dataclasses import asdict

import mage
from mage import runs
from mage.cli.arguments import choice_of, launch_of
from mage.cli.console import counting, emit, skipped_sentence
from mage.cli.options.finetune import Options
from mage.data.datasets import load_dataset
from mage.evaluation.classification import classification_accuracy
from mage.evaluation.confusion import with_interval
from mage.recipes.finetune import protocol
from mage.recipes.resolve import resolve_finetune

PARALLEL = True


def run(options: Options) -> None:
    """Fine-tune, then measure on all test images."""
    recipe, launch = resolve_finetune(choice_of(options)), launch_of(options)
    model = mage.load(options.model, precision=options.precision, device=options.device)
    result = runs.finetune(recipe, launch, model)
    tuned = mage.load(options.out, precision=options.precision, device=options.device)
    test = load_dataset(recipe.data.name, split="test", data_root=options.data_root, channels=tuned.channels)
    with counting(len(test), "image", options) as done:
        cut = recipe.data.test_transform(tuned.image_size)
        measured = classification_accuracy(tuned.classify, test, cut, on_images=done)
    values = {
        "finetune_accuracy": measured.top1,
        "top5_accuracy": measured.top5,
        **measured.confusion.as_dict(),
        "test_images": measured.images,
        "protocol": f"fine-tuning, {protocol(recipe, result.steps, tuned.image_size)}",
        "out": str(options.out),
        **asdict(result),
    }
    skipped = skipped_sentence([*result.skipped, *test.skipped])
    accuracy = with_interval(measured.confusion.right, measured.images)
    lines = [f"{options.out}: {accuracy} of {measured.images:,} test images{skipped}", measured.confusion.sentence()]
    emit(options, values, "\n".join(filter(None, lines)))
