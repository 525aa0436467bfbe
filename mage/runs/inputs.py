"""Inputs of a run: data sets with a recipe's channels, held-out images, and batches of images or cached tokens."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from mage import distributed, rng
from mage.data.batches import Batch, Batches
from mage.data.datasets import ImageDataset, Subset, load_dataset
from mage.data.device_images import DeviceImages
from mage.data.loaders import TrainLoader, decode_to_memory, evaluation_batches
from mage.data.splits import TrainingData, ValidationConfig, carve
from mage.data.storage import check_not_remote
from mage.data.token_batches import CPU, token_batches
from mage.data.token_cache import TokenCache
from mage.data.transforms import TransformConfig, build_transform
from mage.pipeline import Mage
from mage.recipes.schema import Recipe
from mage.settings import from_dict
from mage.share import Share
from mage.training.optim import OptimConfig

logger = logging.getLogger(__name__)


def open_data(name: str, split: str, recipe: Recipe, data_root: str | None) -> ImageDataset:
    """A data set with the recipe's number of channels."""
    return load_dataset(name, split=split, data_root=data_root, channels=recipe.channels, shards=recipe.data.shards)


def training_data(recipe: Recipe, data_root: str | None) -> TrainingData:
    """The recipe's training images, split into training and validation."""
    return carve(open_data(recipe.data.name, "train", recipe, data_root), recipe.data.validation)


def trained_on(model: Mage) -> str | None:
    """The data set of a model's training, by name, as its recipe says; None if it does not say.

    Raises ValueError for an address in a store.
    """
    name = model.recipe.get("data", {}).get("name")
    if not isinstance(name, str) or not name:
        return None
    check_not_remote(name)
    return name


def data_of_model(model: Mage, name: str, data_root: str | None) -> TrainingData:
    """A data set's training images as a model's own training parted them: what it held out, choices are made by."""
    config = from_dict(ValidationConfig, model.recipe.get("data", {}).get("validation", {}), where="data.validation")
    return carve(load_dataset(name, split="train", data_root=data_root, channels=model.channels), config)


def tell_data(data: TrainingData, name: str, size: tuple[int, int]) -> None:
    """Log the data of a run; name: of the data set, as the recipe has it."""
    if distributed.is_first():
        classes = f" in {len(data.train.class_names)} classes" if data.train.class_names else ""
        logger.info(
            "%s, split train: %s images%s to train on, %s held out for validation, seen at %d x %d pixels",
            name, f"{len(data.train):,}", classes, f"{len(data.validation):,}", size[0], size[1],
        )  # fmt: skip


def validation_images(recipe: Recipe, validation: ImageDataset) -> Tensor:
    """Up to `validation.images` of the held-out images, cropped to size: uint8 (n, c, h, w)."""
    plain = replace(recipe.data.transform, augmentation="none")
    count = min(recipe.data.validation.images, len(validation))
    return load_images(validation, list(range(count)), plain)


def load_images(dataset: ImageDataset, indices: list[int], transform: TransformConfig) -> Tensor:
    """The images `indices` of a data set, cropped to size; corrupt ones are left out."""
    return load_labelled(dataset, indices, transform)[0]


def load_labelled(
    dataset: ImageDataset, indices: list[int], transform: TransformConfig
) -> tuple[Tensor, Tensor | None]:
    """The same with their labels, if the data set has any: of the images that could be read."""
    batches = list(evaluation_batches(Subset(dataset, indices), build_transform(transform), batch_size=256))
    labels = None if dataset.labels is None else torch.cat([batch["labels"] for batch in batches])
    return torch.cat([batch["images"] for batch in batches]), labels


def labelled_images(dataset: ImageDataset, count: int, transform: TransformConfig) -> tuple[Tensor, Tensor]:
    """Up to `count` randomly chosen images (uint8) and their labels."""
    order = torch.randperm(len(dataset), generator=rng.generator(0, "online probe")).tolist()[:count]
    pixels, labels = load_labelled(dataset, order, transform)
    if labels is None:
        raise ValueError(f"{dataset.name} has no labels")
    return pixels, labels


def image_batches(
    dataset: ImageDataset,
    transform: TransformConfig,
    optim: OptimConfig,
    seed: int,
    *,
    workers: int = 0,
    pairs: bool = False,
    device: torch.device | None = None,
) -> Batches:
    """Augmented images for training, two views of each with `pairs`; small data sets are read into memory.

    device: where JPEG files are decoded and augmented (`DeviceImages`); None: by the workers.
    """
    source = decode_to_memory(dataset)

    def batches(start: int, share: Share) -> Iterator[Batch]:
        loader = TrainLoader(
            source, build_transform(transform), share=share, seed=seed, start=start, num_workers=workers, pairs=pairs
        )
        return iter(loader) if device is None else iter(DeviceImages(loader, device))

    batches(0, _own_share(optim))  # raises now if the batch does not fit, before anything is written
    return batches


def decoding_device(recipe: Recipe, device: torch.device) -> torch.device | None:
    """Where the recipe's images are decoded; None: by the workers."""
    return device if recipe.data.decode_on == "device" else None


def cached_batches(
    cache: TokenCache, optim: OptimConfig, seed: int, *, pairs: bool = False, device: torch.device = CPU
) -> Batches:
    """Tokens for training on `device`, two views of each image with `pairs`."""

    def batches(start: int, share: Share) -> Iterator[Batch]:
        return token_batches(cache, share=share, seed=seed, start=start, pairs=pairs, device=device)

    batches(0, _own_share(optim))
    return batches


def _own_share(optim: OptimConfig) -> Share:
    return Share(optim.batch_size, optim.accumulation, distributed.rank(), distributed.world_size())
