"""Seconds that reading and encoding images add to a training step: what `pace` leaves out."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import torch

from mage import images, rng
from mage.data.datasets import ImageDataset
from mage.data.image_sets import ArrayDataset, file_of, load_reduced, locality_of, spread
from mage.data.loaders import IN_MEMORY
from mage.data.transforms import TransformConfig, build_transform, needed_side
from mage.pipeline import Mage
from mage.recipes.schema import Recipe

TIMED = 16
"""Images that are read: spread over the data set, but of shards the first ones, since others would be fetched first."""
COMPARED = 100
"""Images whose sizes are compared, if those that are read have the same."""


@dataclass(frozen=True)
class Reading:
    """What a training reads for each step."""

    dataset: ImageDataset
    transform: TransformConfig
    workers: int = 0
    """Processes that read while the step before is computed; 0: the step waits."""
    views: int = 1
    """Of each image."""
    tokenizer: Mage | None = None
    """Encodes every batch, if no cache of tokens is made."""
    on_device: bool = False
    """A device decodes and augments the images, which takes it no time worth counting."""

    def added_to(self, step: float, batch: int) -> float:
        """Seconds of a step of `batch` images with all that it waits for; `step`: of its computation alone."""
        if self.tokenizer is not None:
            step += self.views * batch * self._encoding(self.tokenizer, batch)
        reading = 0.0 if self.on_device else batch * self._reading()
        return max(step, reading / self.workers) if self.workers else step + reading

    def _reading(self) -> float:
        """Seconds to load and to augment one image; only to augment it where all are kept in memory."""
        transform, loading, augmenting, sizes = build_transform(self.transform), 0.0, 0.0, list[torch.Size]()
        least = needed_side(transform)
        for index in self._some(TIMED):
            try:
                # shards are copied to the disk before long, so that fetching an image does not count
                file = None if locality_of(self.dataset) is None else file_of(self.dataset, index)
                start = time.perf_counter()
                if file is None:
                    image = load_reduced(self.dataset, index, least)
                else:
                    image = images.from_bytes(*file, at_least=least)
            except ValueError:  # an image that cannot be read
                continue
            loaded = time.perf_counter()
            for view in range(self.views):
                transform(image, rng.generator(0, "timing", index, view))
            loading, augmenting = loading + loaded - start, augmenting + time.perf_counter() - loaded
            sizes.append(image.shape)
        kept = isinstance(self.dataset, ArrayDataset) or (len(set(sizes)) == 1 and self._kept)
        return (augmenting + (0.0 if kept else loading)) / max(1, len(sizes))

    def _some(self, most: int) -> Sequence[int]:
        """Images of the data set."""
        count = len(self.dataset)
        return spread(count, most) if locality_of(self.dataset) is None else range(min(count, most))

    @cached_property
    def _kept(self) -> bool:
        """Whether a training keeps all images in memory, as far as some tell: with one of another size it does not."""
        sizes = set[torch.Size]()
        for index in self._some(COMPARED):
            with suppress(ValueError):  # an image that cannot be read
                sizes.add(self.dataset.load(index).shape)
            if len(sizes) > 1:
                return False
        return all(size.numel() * len(self.dataset) <= IN_MEMORY for size in sizes)

    @staticmethod
    def _encoding(tokenizer: Mage, batch: int) -> float:
        """Seconds to encode one image, in whole batches, on a CPU in smaller ones."""
        count = min(batch, TIMED) if tokenizer.device.type == "cpu" else batch
        black = torch.zeros(count, tokenizer.channels, *tokenizer.image_size, dtype=torch.uint8)
        for _ in range(2):  # the first one is for warm-up
            start = time.perf_counter()
            tokenizer.encode(images.to_float(black)).cpu()
        return (time.perf_counter() - start) / count


def reading_of(
    recipe: Recipe,
    dataset: ImageDataset,
    transform: TransformConfig,
    workers: int,
    *,
    views: int = 1,
    tokenizer: Mage | None = None,
) -> Reading:
    """What a training by this recipe reads; a device that decodes and augments images does so beside the steps."""
    return Reading(dataset, transform, workers, views, tokenizer, on_device=recipe.data.decode_on == "device")
