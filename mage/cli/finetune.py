"""`mage finetune`: a pre-trained model learns labels."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import mage
from mage.cli.options import Common, Repeated, check_parent, counting, emit, note, skipped_sentence
from mage.data.datasets import load_dataset
from mage.evaluation.classification import classification_accuracy
from mage.precision import resolve, resolve_device
from mage.recipes.finetune import FINETUNES, FinetuneRecipe, finetune, from_yaml, protocol
from mage.settings import override


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Train encoder and a new head on labelled images; OUT/model is then a classifier."""

    model: Path
    """pre-trained model or run folder"""
    data: str | None = None
    """data set by name, or a folder with one folder per class; default: the recipe's"""
    data_root: str | None = None
    """folder where a named data set's files are"""
    out: Path
    """run folder: recipe.yaml, metrics.jsonl, checkpoints/, model/"""
    recipe: str = "small"
    """base and large are the paper's, for ViT-B and ViT-L on ImageNet; small is for small models and data sets"""
    config: Path | None = None
    """a recipe as YAML file, such as an earlier OUT/recipe.yaml, instead of --recipe"""
    set: Repeated = ()
    """override one setting, such as --set optim.epochs=20; may be repeated"""
    seed: int | None = None
    """seed of everything random; default: the recipe's"""
    resume: bool = False
    """go on with the run in --out"""
    workers: int = 0
    """processes that read and augment images"""


def run(options: Options) -> None:
    """Fine-tune, then measure on all test images."""
    check_parent(options.out)
    recipe = _recipe(options)
    model = mage.load(options.model, precision=options.precision, device=options.device)
    note(options, f"precision {resolve(options.precision, resolve_device(options.device))}, recipe {recipe.name}")
    result = finetune(
        model,
        recipe,
        options.out,
        data_root=options.data_root,
        resume=options.resume,
        precision=options.precision,
        device=options.device,
        progress=not options.json,
        workers=options.workers,
    )
    tuned = mage.load(options.out, precision=options.precision, device=options.device)
    test = load_dataset(recipe.data.name, split="test", data_root=options.data_root, channels=tuned.channels)
    with counting(len(test), "image", options) as done:
        cut = recipe.data.test_transform(tuned.image_size)
        found = classification_accuracy(tuned.classify, test, cut, on_images=done)
    values = {
        "finetune_accuracy": found.top1,
        "top5_accuracy": found.top5,
        "test_images": found.images,
        "protocol": f"fine-tuning, {protocol(recipe, result.steps, tuned.image_size)}",
        "out": str(options.out),
        **asdict(result),
    }
    skipped = skipped_sentence([*result.skipped, *test.skipped])
    emit(options, values, f"{options.out}: {found.top1:.2%} of {found.images:,} test images{skipped}")


def _recipe(options: Options) -> FinetuneRecipe:
    if options.config is None and options.recipe not in FINETUNES:
        raise ValueError(f"there is no recipe {options.recipe!r} of fine-tuning; there are {', '.join(FINETUNES)}")
    recipe = from_yaml(options.config) if options.config is not None else FINETUNES[options.recipe]()
    changes = list(options.set)
    changes += [f"data.name={json.dumps(options.data)}"] if options.data is not None else []
    changes += [f"seed={options.seed}"] if options.seed is not None else []
    return override(recipe, changes)
