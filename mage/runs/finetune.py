"""Fine-tune a pre-trained model on labels."""

import logging
from dataclasses import replace
from typing import Any

import torch

from mage import distributed, rng, settings
from mage.data.datasets import ImageDataset, content_of, train_and_test
from mage.data.splits import carve
from mage.evaluation.features import labels_of
from mage.models import Classifier, MAGEClassifier, MAGETransformer, PatchClassifier, PatchEncoder
from mage.models.pooling import Pool
from mage.pipeline import Mage
from mage.recipes.finetune import FinetuneRecipe
from mage.runs.inputs import image_batches, labelled_images, tell_data
from mage.runs.launch import Launch, announce, run_task
from mage.runs.tokenizer import notes_of_tokenizer
from mage.tokenizers.base import weights_fingerprint
from mage.training.classify import Finetuning
from mage.training.run import TrainResult

logger = logging.getLogger(__name__)


def finetune(recipe: FinetuneRecipe, launch: Launch, model: Mage) -> TrainResult:
    """Fine-tune a pre-trained model on labels; the run folder then holds a classifier.

    Test images are opened only to check that they have the same classes.
    """
    launch.check_out()
    model.to(launch.start())
    transform = replace(recipe.data.transform, size=model.image_size)
    recipe = replace(recipe, data=replace(recipe.data, transform=transform))
    dataset, test = train_and_test(recipe.data.name, data_root=launch.data_root, channels=model.channels)
    classes = check_labels(dataset, test)
    data = carve(dataset, recipe.data.validation)
    tell_data(data, recipe.data.name, model.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.stream_seed(recipe.seed, "classifier weights"))
        classifier = start_classifier(
            model,
            classes,
            pool=recipe.pool,
            drop_path=recipe.drop_path,
            dropout=recipe.dropout,
            embedding_dropout=recipe.embedding_dropout,
        )
    cut = recipe.data.test_transform(model.image_size)
    tokenizer = model.tokenizer if isinstance(classifier, MAGEClassifier) else None
    task = Finetuning(
        classifier,
        tokenizer,
        image_batches(data.train, transform, recipe.optim, recipe.seed, workers=launch.workers),
        num_images=len(data.train),
        optim=recipe.optim,
        mixing=recipe.mixing,
        recipe=settings.to_dict(recipe),
        seed=recipe.seed,
        validation=labelled_images(data.validation, recipe.data.validation.images, cut),
        notes=notes_of_tokenizer(model) | {"class_names": list(dataset.class_names)},
        precision=launch.resolved_precision(),
    )
    piece = recipe.optim.batch_size // (recipe.optim.accumulation * distributed.world_size())
    if task.of_parts and piece % 2 and distributed.world_size() > 1 and distributed.is_first():
        logger.warning("each process computes %d images at a time, and %s", piece, task.of_parts)
    values = settings.to_dict(recipe)
    learned: dict[str, Any] = {name: value for name, value in values.items() if name not in ("name", "run")}
    learned |= {"content": content_of(data.train), "encoder": weights_fingerprint(classifier.encoder.state_dict())}
    if tokenizer is not None:
        learned["tokenizer"] = tokenizer.fingerprint()
    announce("fine-tuning", recipe, launch, recipe.optim, len(data.train))
    return run_task(task, recipe, launch, learned, data.train)


def start_classifier(
    model: Mage,
    num_classes: int,
    *,
    pool: Pool = "mean",
    drop_path: float = 0.0,
    dropout: float = 0.0,
    embedding_dropout: float = 0.0,
) -> Classifier:
    """A classifier with a model's encoder and a new head. Raises ValueError if there is no encoder."""
    source = model.transformer
    classifier: Classifier
    if isinstance(source, PatchEncoder | PatchClassifier):
        classifier = PatchClassifier(source.config, num_classes=num_classes, pool=pool, drop_path=drop_path)
    elif isinstance(source, MAGETransformer | MAGEClassifier):
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
        raise ValueError(
            "fine-tuning needs a pre-trained model, and this one has no transformer: run `mage pretrain` first"
        )
    encoder_state = (source if isinstance(source, PatchEncoder) else source.encoder).state_dict()
    missing = classifier.encoder.state_dict().keys() - encoder_state.keys()
    if missing:  # a classifier that pools by mean has lost the norm of the class token
        raise ValueError(
            f"the model lacks {', '.join(sorted(missing))}; it was trained with another pooling: choose the same `pool`"
        )
    classifier.encoder.load_state_dict({name: encoder_state[name] for name in classifier.encoder.state_dict()})
    return classifier


def check_labels(train_set: ImageDataset, test_set: ImageDataset) -> int:
    """The number of classes. Raises ValueError unless both splits have the same two or more classes."""
    for dataset in (train_set, test_set):
        labels_of(dataset)
    if train_set.class_names != test_set.class_names:
        raise ValueError("the training and test images have different classes: both splits need the same class folders")
    if len(train_set.class_names) < 2:
        raise ValueError(f"{train_set.name} has a single class; a classifier needs at least two")
    return len(train_set.class_names)
