"""What goes into a run: data sets with a recipe's channels, held-out images, and batches of images or cached tokens."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from mage import rng
from mage.data.datasets import ImageDataset, load_dataset, subset
from mage.data.loaders import TrainLoader, decode_to_memory, evaluation_batches
from mage.data.token_batches import token_batches
from mage.data.token_cache import TokenCache
from mage.data.transforms import TransformConfig, build_transform
from mage.recipes.schema import Recipe
from mage.training.optim import OptimConfig

Batches = Callable[[int, int, int], Iterator[dict[str, Tensor]]]
"""(number of the first batch, rank, world size) -> this process's batches from there on."""


def open_data(name: str, split: str, recipe: Recipe, data_root: str | None) -> ImageDataset:
    """A data set with the recipe's number of channels."""
    return load_dataset(name, split=split, data_root=data_root, channels=recipe.tokenizer.channels)


def held_out(recipe: Recipe, name: str, data_root: str | None) -> Tensor:
    """Up to `validation_images` images of the test split, chosen evenly from a shuffled order: uint8 (n, c, h, w)."""
    dataset = open_data(name, "test", recipe, data_root)
    order = torch.randperm(len(dataset), generator=rng.generator(0, "validation")).tolist()
    plain = replace(recipe.data.transform, augmentation="none")
    return load_images(dataset, order[: recipe.data.validation_images], plain)


def load_images(dataset: ImageDataset, indices: list[int], transform: TransformConfig) -> Tensor:
    """Some images of a data set, cut to size; corrupt ones are left out."""
    batches = evaluation_batches(subset(dataset, indices), build_transform(transform), batch_size=256)
    return torch.cat([batch["images"] for batch in batches])


def labelled_images(dataset: ImageDataset, count: int, transform: TransformConfig) -> tuple[Tensor, Tensor]:
    """Up to `count` images (uint8) and their labels, chosen evenly from a shuffled order."""
    order = torch.randperm(len(dataset), generator=rng.generator(0, "online probe")).tolist()[:count]
    batches = list(evaluation_batches(subset(dataset, order), build_transform(transform), batch_size=256))
    return torch.cat([batch["images"] for batch in batches]), torch.cat([batch["labels"] for batch in batches])


def image_batches(
    dataset: ImageDataset,
    transform: TransformConfig,
    optim: OptimConfig,
    seed: int,
    *,
    workers: int = 0,
    pairs: bool = False,
) -> Batches:
    """Augmented images for training, in two views each with `pairs`; a set of small images is read into memory once."""
    per_part = optim.batch_size // optim.accumulation
    source = decode_to_memory(dataset)

    def batches(start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        loader = TrainLoader(
            source,
            build_transform(transform),
            batch_size=per_part // world_size,
            seed=seed,
            start_step=start,
            rank=rank,
            world_size=world_size,
            num_workers=workers,
            pairs=pairs,
        )
        return iter(loader)

    batches(0, 0, 1)  # a batch that does not fit is an error now, before anything is written
    return batches


def cached_batches(cache: TokenCache, optim: OptimConfig, seed: int, *, pairs: bool = False) -> Batches:
    """Tokens for training, in two views of each image with `pairs`."""
    per_part = optim.batch_size // optim.accumulation

    def batches(start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        share = per_part // world_size
        return token_batches(
            cache, batch_size=share, seed=seed, start=start, rank=rank, world_size=world_size, pairs=pairs
        )

    batches(0, 0, 1)
    return batches
