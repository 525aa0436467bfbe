"""Fine-tuning from a recipe of its own: what is learned, how images are varied, how far each layer may move.

`base` and `large` are the paper's (section 4.3) as its public code sets them, for ViT-B and ViT-L on ImageNet. `small`
is ours, for small models and data sets of thousands of small images.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import yaml

from mage import atomic, rng, settings
from mage.data.datasets import ImageDataset, load_dataset
from mage.data.transforms import TransformConfig, evaluation_transform
from mage.models import MAGE, Classifier, MAGEClassifier, PatchClassifier, PatchEncoder
from mage.models.mage import Pool
from mage.pipeline import Mage
from mage.precision import resolve, resolve_device
from mage.recipes.inputs import image_batches, labelled_images
from mage.recipes.runs import check_out
from mage.training.classify import Finetuning, MixConfig
from mage.training.engine import train
from mage.training.optim import OptimConfig
from mage.training.run import RunConfig, TrainResult


@dataclass(frozen=True)
class FinetuneData:
    """Labelled images, and how they are varied."""

    name: str = "mnist5k"
    """Data set by name, or a folder with one folder per class."""
    transform: TransformConfig = field(
        default_factory=lambda: TransformConfig(
            augmentation="crop_flip",
            scale=(0.2, 1.0),
            interpolation="bicubic",
            rand_augment="rand-m9-mstd0.5-inc1",
        )
    )
    """Augmentation; its size becomes the model's."""
    test_resize: float = 292 / 256
    """Shorter side of a test image over the side of the centre that is cut from it; 1: all that the cut can show."""
    validation_images: int = 1000
    """Images of the test split, at most, that training watches itself on; the result is measured on all."""

    def test_transform(self, size: tuple[int, int]) -> TransformConfig:
        """How test images are cut to the model's size."""
        return evaluation_transform(size, self.test_resize)


@dataclass(frozen=True)
class FinetuneRecipe:
    """Everything that decides a fine-tuning beside the model; the defaults are the paper's for ViT-B."""

    name: str = "base"
    """Name."""
    data: FinetuneData = field(default_factory=FinetuneData)
    """Data."""
    mixing: MixConfig = field(default_factory=MixConfig)
    """Mixup, cutmix and label smoothing."""
    pool: Pool = "mean"
    """What the head sees: mean of the tokens, or the class token."""
    drop_path: float = 0.1
    """Largest share of the images for which a block is skipped in training; grows with depth."""
    dropout: float = 0.0
    """Dropout in the blocks of an encoder of tokens, whatever it had in pre-training."""
    embedding_dropout: float = 0.1
    """Dropout on its embedding."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            batch_size=1024,
            epochs=100,
            base_learning_rate=2.5e-4,
            end_learning_rate=1e-3,  # of a peak of 1e-3: the published minimum of 1e-6
            warmup=0.05,
            betas=(0.9, 0.999),
            clip=0.0,
            ema_decay=0.0,
            layer_decay=0.65,
        )
    )
    """Optimizer."""
    run: RunConfig = field(default_factory=RunConfig)
    """Logging and checkpoints."""
    seed: int = 0
    """Seed of everything random."""


def _large() -> FinetuneRecipe:
    base = FinetuneRecipe()
    return replace(
        base, name="large", drop_path=0.2, optim=replace(base.optim, epochs=50, warmup=0.1, layer_decay=0.75)
    )


def _small() -> FinetuneRecipe:
    base = FinetuneRecipe()
    transform = replace(base.data.transform, scale=(0.5, 1.0), interpolation="bilinear", rand_augment="")
    return replace(
        base,
        name="small",
        data=replace(base.data, transform=transform, test_resize=1.0),
        mixing=MixConfig(mixup=0.2, cutmix=0.5),
        drop_path=0.05,
        embedding_dropout=0.0,
        optim=replace(
            base.optim,
            batch_size=128,
            epochs=10,
            base_learning_rate=2e-3,
            end_learning_rate=0.0,
            warmup=0.1,
            layer_decay=0.75,
            clip=3.0,
        ),
        run=RunConfig(observe_every=500, checkpoint_every=500),
    )


FINETUNES: dict[str, Callable[[], FinetuneRecipe]] = {"base": FinetuneRecipe, "large": _large, "small": _small}
"""Recipes by name."""


def finetune(
    model: Mage,
    recipe: FinetuneRecipe,
    out: Path,
    *,
    data_root: str | None = None,
    resume: bool = False,
    precision: str = "auto",
    device: str = "auto",
    progress: bool = True,
    workers: int = 0,
) -> TrainResult:
    """Fine-tune a pre-trained model on labels; the run folder `out` then holds a classifier."""
    check_out(out, resume)
    transform = replace(recipe.data.transform, size=model.image_size)
    recipe = replace(recipe, data=replace(recipe.data, transform=transform))
    dataset, test = (
        load_dataset(recipe.data.name, split=split, data_root=data_root, channels=model.channels)
        for split in ("train", "test")
    )
    classes = check_labels(dataset, test)
    where = resolve_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.stream_seed(recipe.seed, "classifier weights"))
        classifier = start_classifier(
            model,
            classes,
            pool=recipe.pool,
            drop_path=recipe.drop_path,
            dropout=recipe.dropout,
            embedding_dropout=recipe.embedding_dropout,
        )
    sees_tokens = isinstance(classifier, MAGEClassifier)
    task = Finetuning(
        classifier,
        model.tokenizer if sees_tokens else None,
        image_batches(dataset, transform, recipe.optim, recipe.seed, workers=workers),
        num_images=len(dataset),
        optim=recipe.optim,
        mixing=recipe.mixing,
        recipe=settings.to_dict(recipe),
        seed=recipe.seed,
        validation=labelled_images(test, recipe.data.validation_images, recipe.data.test_transform(model.image_size)),
        notes=model.notes | {"class_names": list(dataset.class_names)},
        precision=resolve(precision, where),
    )
    if not resume:
        atomic.write_text(out / "recipe.yaml", yaml.safe_dump(settings.to_dict(recipe), sort_keys=False))
    result = train(
        task,
        recipe.run,
        out,
        seed=recipe.seed,
        settings=settings.to_dict(recipe),
        resume=resume,
        precision=precision,
        device=where,
        progress=progress,
    )
    return replace(result, skipped=tuple(dataset.skipped))


def protocol(recipe: FinetuneRecipe, steps: int, size: tuple[int, int]) -> str:
    """How an accuracy after fine-tuning was measured, in one line."""
    cut = recipe.data.test_transform(size)
    test = f"test images scaled to {cut.resize} and cut to {max(size)}" if cut.resize else "fixed centre crops"
    return f"recipe {recipe.name}, {steps} steps, {test}"


def start_classifier(
    model: Mage,
    num_classes: int,
    *,
    pool: Pool = "mean",
    drop_path: float = 0.0,
    dropout: float = 0.0,
    embedding_dropout: float = 0.0,
) -> Classifier:
    """A classifier that begins at a model's encoder, with a new head. Raises ValueError where there is no encoder."""
    source = model.transformer
    classifier: Classifier
    if isinstance(source, PatchEncoder | PatchClassifier):
        classifier = PatchClassifier(source.config, num_classes=num_classes, pool=pool, drop_path=drop_path)
    elif isinstance(source, MAGE | MAGEClassifier):
        classifier = MAGEClassifier(
            replace(source.config, dropout=dropout),
            source.vocabulary,
            source.grid,
            num_classes=num_classes,
            pool=pool,
            drop_path=drop_path,
            embedding_dropout=embedding_dropout,
        )
    else:
        raise ValueError("fine-tuning needs a pre-trained model, this one has no transformer")
    given = (source if isinstance(source, PatchEncoder) else source.encoder).state_dict()
    missing = classifier.encoder.state_dict().keys() - given.keys()
    if missing:  # a classifier that pools by mean has lost the norm of the class token
        raise ValueError(f"the model lacks {', '.join(sorted(missing))}; it was made with another pooling")
    classifier.encoder.load_state_dict({name: given[name] for name in classifier.encoder.state_dict()})
    return classifier


def check_labels(train_set: ImageDataset, test_set: ImageDataset) -> int:
    """The number of classes. Raises ValueError if the splits cannot be learned and measured."""
    for dataset in (train_set, test_set):
        if dataset.labels is None:
            raise ValueError(f"{dataset.name} has no labels: put each class's images into a folder of its own")
    if train_set.class_names != test_set.class_names:
        raise ValueError("the training and test images have different classes")
    if len(train_set.class_names) < 2:
        raise ValueError("the training images have a single class; a classifier needs at least two")
    return len(train_set.class_names)


def from_yaml(path: str | Path) -> FinetuneRecipe:
    """Read a recipe of fine-tuning. Raises ValueError naming what is wrong in the file."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} is not readable as YAML: {' '.join(str(error).split())[:120]}") from None
    return settings.from_dict(FinetuneRecipe, values, where=str(path))
